//! Users in PostgreSQL.
//!
//! Owns: [`Postgres`]: its connections, the question, how columns are read. Does not own: what a row means (see
//! `row`). Start reading at [`Postgres::user`]. Invariant: the statement never changes; what a Client says is
//! bound to it.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::{Column, ConnectOptions, Row as _, TypeInfo, ValueRef};

use super::row::{Right, Row, groups_of, is_yes, own_rules};
use super::sql::{Failed, Statement, is_about_data, unknown_right};
use super::{Directory, Found, Question, server_ca, server_password, told};
use crate::authentication::AuthenticationError;
use crate::authorization::OwnRules;
use crate::config::{Placeholder, SqlConfig};
use crate::outbound::AskError;

/// A database that a statement asks.
pub(super) struct Postgres {
    options: PgConnectOptions,
    config: SqlConfig,
    /// Made where it is first used, which is on the runtime that it needs.
    pool: OnceLock<PgPool>,
    user: Statement,
    rights: Option<Statement>,
}

impl Postgres {
    /// # Errors
    /// A file that it rests on cannot be used.
    pub(super) fn new(config: &SqlConfig) -> Result<Self, AuthenticationError> {
        let server = &config.server;
        let wrong = |error: sqlx::Error| AuthenticationError::Server {
            name: "postgres",
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
        Ok(Self {
            options,
            config: config.clone(),
            pool: OnceLock::new(),
            user: Statement::new(config.query.numbered()),
            rights: config
                .rights_query
                .as_ref()
                .map(|query| Statement::new(query.numbered())),
        })
    }

    fn pool(&self) -> &PgPool {
        self.pool.get_or_init(|| {
            let ask = &self.config.server.ask;
            PgPoolOptions::new()
                .max_connections(u32::try_from(ask.at_once).unwrap_or(u32::MAX))
                .acquire_timeout(ask.timeout)
                // Never reached: slowness is the breaker's to tell.
                .acquire_slow_threshold(ask.timeout * 2)
                .connect_lazy_with(self.options.clone())
        })
    }

    /// The first rows that `statement` has for `question`, not more than `most`.
    async fn rows(
        &self,
        statement: &Statement,
        question: &Question,
        most: usize,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut query = sqlx::query(statement.text());
        for parameter in &statement.parameters {
            query = query.bind(question.value(*parameter).into_owned());
        }
        let mut rows = Vec::new();
        let mut stream = query.fetch(self.pool());
        while rows.len() < most
            && let Some(row) = stream.try_next().await?
        {
            rows.push(row);
        }
        Ok(rows)
    }

    async fn user(&self, question: &Question) -> Result<Option<Row>, Failed> {
        let rows = self.rows(&self.user, question, 1).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let mut row = read(first)?;
        if let Some(rights) = &self.rights {
            let rows = self.rows(rights, question, OwnRules::MAX + 1).await?;
            let rights: Result<Vec<Right>, AskError> = rows.iter().map(read_right).collect();
            row.rights = Some(own_rules(&rights?, "postgres"));
        }
        Ok(Some(row))
    }
}

impl Directory for Postgres {
    fn asks_for(&self, placeholder: Placeholder) -> bool {
        let mut all = [Some(&self.user), self.rights.as_ref()]
            .into_iter()
            .flatten();
        all.any(|statement| statement.parameters.contains(&placeholder))
    }

    async fn find(self: Arc<Self>, question: Question) -> Result<Option<Found>, AskError> {
        let row = match self.user(&question).await {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(None),
            Err(Failed::Sql(error)) if is_about_data(&error) => return Ok(None),
            Err(Failed::Sql(error)) => return Err(told(&error)),
            Err(Failed::Shape(error)) => return Err(error),
        };
        Ok(row.user(&question.user_name, "postgres"))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({:?})", self.config.server.url)
    }
}

/// One column of a row, and how it is read.
struct Field<'a> {
    row: &'a PgRow,
    place: usize,
    name: &'a str,
    kind: String,
}

impl<'a> Field<'a> {
    fn all(row: &'a PgRow) -> Result<Vec<Self>, AskError> {
        let columns = row.columns().iter().enumerate();
        let field = |(place, column): (usize, &'a sqlx::postgres::PgColumn)| {
            let value = row.try_get_raw(place).map_err(|error| told(&error))?;
            Ok(Self {
                row,
                place,
                name: column.name(),
                kind: value.type_info().name().to_owned(),
            })
        };
        columns.map(field).collect()
    }

    fn is_null(&self) -> bool {
        let value = self.row.try_get_raw(self.place);
        value.is_ok_and(|value| value.is_null())
    }

    fn unfit(&self) -> AskError {
        let Self { name, kind, .. } = self;
        AskError(format!("column {name:?} is {kind}: cast it to text"))
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

fn read(from: &PgRow) -> Result<Row, AskError> {
    let mut row = Row::default();
    let mut has_password = false;
    for field in Field::all(from)? {
        match field.name {
            "password" => {
                has_password = true;
                row.password = field.text()?;
            }
            "username" => row.user_name = Some(field.text()?.unwrap_or_default()),
            "administrator" => row.is_administrator = field.flag()?.unwrap_or(false),
            "groups" => row.groups = field.list()?,
            _ if field.is_null() => {}
            name => {
                if let Some(value) = field.text()? {
                    row.attributes.insert(name.to_owned(), value);
                }
            }
        }
    }
    if !has_password {
        return Err(AskError("the query returns no column password".to_owned()));
    }
    Ok(row)
}

fn read_right(from: &PgRow) -> Result<Right, AskError> {
    let mut right = Right::default();
    for field in Field::all(from)? {
        match field.name {
            "name" => right.name = field.text()?,
            "effect" => right.effect = field.text()?.unwrap_or_default(),
            "actions" => right.actions = field.list()?,
            "topic" => right.topic = field.text()?.unwrap_or_default(),
            "qos_max" => right.qos_max = field.number()?,
            "retain" => right.retain = field.flag()?,
            name => return Err(unknown_right(name)),
        }
    }
    Ok(right)
}
