//! Users in MySQL or MariaDB.
//!
//! Owns: how it is reached, how its columns are read. Does not own: what is asked (see `sql`), what a row means (see
//! `row`). Start reading at [`new`]. Invariant: a row has to say whose it is, because names are compared without
//! regard to case there.

use std::str::FromStr;

use sqlx::mysql::{MySql, MySqlConnectOptions, MySqlDatabaseError, MySqlRow, MySqlSslMode};
use sqlx::{Column, ConnectOptions, Row as _, ValueRef};

use super::row::{groups_of, is_yes};
use super::sql::{Dialect, Field, Sql, Statement};
use super::{server_ca, server_password, told};
use crate::authentication::AuthenticationError;
use crate::config::SqlConfig;
use crate::outbound::AskError;

/// Asks as `config` says.
/// # Errors
/// A file that it rests on cannot be used.
pub(super) fn new(config: &SqlConfig) -> Result<Sql<MySql>, AuthenticationError> {
    let server = &config.server;
    let wrong = |error: sqlx::Error| AuthenticationError::Server {
        name: MySql::KEY,
        problem: told(&error).0,
    };
    let mut options = MySqlConnectOptions::from_str(server.url.expose()).map_err(wrong)?;
    if let Some(password) = server_password(server)? {
        options = options.password(&password);
    }
    let mode = if server.has_tls {
        MySqlSslMode::VerifyIdentity
    } else {
        MySqlSslMode::Disabled
    };
    options = options.ssl_mode(mode).disable_statement_logging();
    if let Some(ca) = server_ca(server)? {
        options = options.ssl_ca_from_pem(ca);
    }
    let user = Statement::new(config.query.marked());
    let rights = config.rights_query.as_ref();
    let rights = rights.map(|query| Statement::new(query.marked()));
    Ok(Sql::new(options, config.clone(), user, rights))
}

impl Dialect for MySql {
    const KEY: &'static str = "mysql";
    const IS_TO_NAME: bool = true;
    type Field<'a> = MySqlField<'a>;

    fn fields(row: &MySqlRow) -> Result<Vec<MySqlField<'_>>, AskError> {
        let columns = row.columns().iter().enumerate();
        let fields = columns.map(|(place, column)| MySqlField {
            row,
            place,
            name: column.name(),
        });
        Ok(fields.collect())
    }

    /// What a Client has said has characters that the column has not.
    fn is_nobody(error: &sqlx::Error) -> bool {
        let error = error.as_database_error();
        let error = error.and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
        error.is_some_and(|error| CHARACTERS.contains(&error.number()))
    }
}

/// One column of a row.
pub(super) struct MySqlField<'a> {
    row: &'a MySqlRow,
    place: usize,
    name: &'a str,
}

impl MySqlField<'_> {
    fn unfit(&self, wanted: &str) -> AskError {
        AskError(format!("column {:?} is no {wanted}: cast it", self.name))
    }
}

impl Field for MySqlField<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn is_null(&self) -> bool {
        let value = self.row.try_get_raw(self.place);
        value.is_ok_and(|value| value.is_null())
    }

    /// A text, also one of a column that is compared byte by byte.
    fn text(&self) -> Result<Option<String>, AskError> {
        if let Ok(text) = self.row.try_get::<Option<String>, _>(self.place) {
            return Ok(text);
        }
        let bytes: Option<Vec<u8>> = self
            .row
            .try_get(self.place)
            .map_err(|_| self.unfit("text"))?;
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|_| self.unfit("text"))
    }

    fn list(&self) -> Result<Vec<String>, AskError> {
        Ok(self
            .text()?
            .map(|text| groups_of(&text))
            .unwrap_or_default())
    }

    fn number(&self) -> Result<Option<i64>, AskError> {
        self.row
            .try_get(self.place)
            .map_err(|_| self.unfit("number"))
    }

    /// `BOOLEAN` is a number there.
    fn flag(&self) -> Result<Option<bool>, AskError> {
        if let Ok(number) = self.number() {
            return Ok(number.map(|number| number != 0));
        }
        Ok(self.text()?.map(|text| is_yes(&text)))
    }
}

/// Illegal mix of collations (two, three, more), invalid character string, incorrect string value, impossible
/// conversion.
const CHARACTERS: [u16; 6] = [1267, 1270, 1271, 1300, 1366, 3854];
