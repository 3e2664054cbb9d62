//! Users in PostgreSQL.
//!
//! Owns: how it is reached, how its columns are read. Does not own: what is asked (see `sql`), what a row means (see
//! `row`). Start reading at [`new`]. Invariant: a column of a type that is not foreseen is an error, not a guess.

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode, Postgres};
use sqlx::{Column, ConnectOptions, Row as _, TypeInfo, ValueRef};

use super::row::{groups_of, is_yes};
use super::sql::{Dialect, Field, Sql, Statement};
use super::{server_ca, server_password, told};
use crate::authentication::AuthenticationError;
use crate::config::SqlConfig;
use crate::outbound::AskError;

/// Asks as `config` says.
/// # Errors
/// A file that it rests on cannot be used.
pub(super) fn new(config: &SqlConfig) -> Result<Sql<Postgres>, AuthenticationError> {
    let server = &config.server;
    let wrong = |error: sqlx::Error| AuthenticationError::Server {
        name: Postgres::KEY,
        problem: told(&error).0,
    };
    let mut options = PgConnectOptions::from_str(server.url.expose()).map_err(wrong)?;
    if let Some(password) = server_password(server)? {
        options = options.password(&password);
    }
    let mode = if server.has_tls {
        PgSslMode::VerifyFull
    } else {
        PgSslMode::Disable
    };
    options = options.ssl_mode(mode).disable_statement_logging();
    if let Some(ca) = server_ca(server)? {
        options = options.ssl_root_cert_from_pem(ca);
    }
    let user = Statement::new(config.query.numbered());
    let rights = config.rights_query.as_ref();
    let rights = rights.map(|query| Statement::new(query.numbered()));
    Ok(Sql::new(options, config.clone(), user, rights))
}

impl Dialect for Postgres {
    const KEY: &'static str = "postgres";
    const IS_TO_NAME: bool = false;
    type Field<'a> = PgField<'a>;

    fn fields(row: &PgRow) -> Result<Vec<PgField<'_>>, AskError> {
        let columns = row.columns().iter().enumerate();
        let fields = columns.map(|(place, column)| {
            let value = row.try_get_raw(place).map_err(|error| told(&error))?;
            Ok(PgField {
                row,
                place,
                name: column.name(),
                kind: value.type_info().name().to_owned(),
            })
        });
        fields.collect()
    }

    fn is_nobody(_: &sqlx::Error) -> bool {
        false
    }
}

/// One column of a row.
pub(super) struct PgField<'a> {
    row: &'a PgRow,
    place: usize,
    name: &'a str,
    kind: String,
}

impl PgField<'_> {
    fn unfit(&self) -> AskError {
        let Self { name, kind, .. } = self;
        AskError(format!("column {name:?} is {kind}: cast it to text"))
    }
}

impl Field for PgField<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn is_null(&self) -> bool {
        let value = self.row.try_get_raw(self.place);
        value.is_ok_and(|value| value.is_null())
    }

    fn text(&self) -> Result<Option<String>, AskError> {
        self.row.try_get(self.place).map_err(|_| self.unfit())
    }

    /// An array of texts, or a text with commas.
    fn list(&self) -> Result<Vec<String>, AskError> {
        if !self.kind.ends_with("[]") {
            return Ok(self
                .text()?
                .map(|text| groups_of(&text))
                .unwrap_or_default());
        }
        let all: Option<Vec<Option<String>>> =
            self.row.try_get(self.place).map_err(|_| self.unfit())?;
        Ok(all.into_iter().flatten().flatten().collect())
    }

    fn flag(&self) -> Result<Option<bool>, AskError> {
        if self.kind == "BOOL" {
            return self.row.try_get(self.place).map_err(|_| self.unfit());
        }
        Ok(self.text()?.map(|text| is_yes(&text)))
    }

    fn number(&self) -> Result<Option<i64>, AskError> {
        let (row, place) = (self.row, self.place);
        let number = match self.kind.as_str() {
            "INT2" => row
                .try_get::<Option<i16>, _>(place)
                .map(|n| n.map(i64::from)),
            "INT4" => row
                .try_get::<Option<i32>, _>(place)
                .map(|n| n.map(i64::from)),
            _ => row.try_get(place),
        };
        let Self { name, kind, .. } = self;
        number.map_err(|_| AskError(format!("column {name:?} is {kind}: cast it to integer")))
    }
}
