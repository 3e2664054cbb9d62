//! Users in MySQL or MariaDB.
//!
//! Owns: [`MySql`]: its connections, the question, how columns are read. Does not own: what a row means (see
//! `row`). Start reading at [`MySql::user`]. Invariants: the statement never changes, what a Client says is bound
//! to it; a row has to say whose it is, because names are compared without regard to case there.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use futures_util::TryStreamExt;
use sqlx::mysql::{
    MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlPoolOptions, MySqlRow, MySqlSslMode,
};
use sqlx::{Column, ConnectOptions, Row as _, ValueRef};

use super::row::{Right, Row, groups_of, is_yes, own_rules};
use super::sql::{Failed, Statement, is_about_data, unknown_right};
use super::{Directory, Found, Question, server_ca, server_password, told};
use crate::authentication::AuthenticationError;
use crate::authorization::OwnRules;
use crate::config::{Placeholder, SqlConfig};
use crate::outbound::AskError;

/// A database that a statement asks.
pub(super) struct MySql {
    options: MySqlConnectOptions,
    config: SqlConfig,
    /// Made where it is first used, which is on the runtime that it needs.
    pool: OnceLock<MySqlPool>,
    user: Statement,
    rights: Option<Statement>,
}

impl MySql {
    /// # Errors
    /// A file that it rests on cannot be used.
    pub(super) fn new(config: &SqlConfig) -> Result<Self, AuthenticationError> {
        let server = &config.server;
        let wrong = |error: sqlx::Error| AuthenticationError::Server {
            name: "mysql",
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
        Ok(Self {
            options,
            config: config.clone(),
            pool: OnceLock::new(),
            user: Statement::new(config.query.marked()),
            rights: config
                .rights_query
                .as_ref()
                .map(|query| Statement::new(query.marked())),
        })
    }

    fn pool(&self) -> &MySqlPool {
        self.pool.get_or_init(|| {
            let ask = &self.config.server.ask;
            MySqlPoolOptions::new()
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
    ) -> Result<Vec<MySqlRow>, sqlx::Error> {
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
            row.rights = Some(own_rules(&rights?, "mysql"));
        }
        Ok(Some(row))
    }
}

impl Directory for MySql {
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
            Err(Failed::Sql(error)) if is_about_data(&error) || is_about_characters(&error) => {
                return Ok(None);
            }
            Err(Failed::Sql(error)) => return Err(told(&error)),
            Err(Failed::Shape(error)) => return Err(error),
        };
        if row.user_name.is_none() {
            return Err(AskError("the query returns no column username".to_owned()));
        }
        Ok(row.user(&question.user_name, "mysql"))
    }
}

impl fmt::Debug for MySql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MySql({:?})", self.config.server.url)
    }
}

/// What a Client has said has characters that the column has not.
fn is_about_characters(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    let error = error.and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| CHARACTERS.contains(&error.number()))
}

/// One column of a row, and how it is read.
struct Field<'a> {
    row: &'a MySqlRow,
    place: usize,
    name: &'a str,
}

impl<'a> Field<'a> {
    fn all(row: &'a MySqlRow) -> impl Iterator<Item = Self> {
        let columns = row.columns().iter().enumerate();
        columns.map(move |(place, column)| Self {
            row,
            place,
            name: column.name(),
        })
    }

    fn is_null(&self) -> bool {
        let value = self.row.try_get_raw(self.place);
        value.is_ok_and(|value| value.is_null())
    }

    fn unfit(&self, wanted: &str) -> AskError {
        AskError(format!("column {:?} is no {wanted}: cast it", self.name))
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

fn read(from: &MySqlRow) -> Result<Row, AskError> {
    let mut row = Row::default();
    let mut has_password = false;
    for field in Field::all(from) {
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

fn read_right(from: &MySqlRow) -> Result<Right, AskError> {
    let mut right = Right::default();
    for field in Field::all(from) {
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

/// Illegal mix of collations (two, three, more), invalid character string, incorrect string value, impossible
/// conversion.
const CHARACTERS: [u16; 6] = [1267, 1270, 1271, 1300, 1366, 3854];
