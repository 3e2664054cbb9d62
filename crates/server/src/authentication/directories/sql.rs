//! Users in a database that speaks SQL, whichever: what is asked, what an error means, what a row says.
//!
//! Owns: [`Sql`], [`Statement`], [`read`]. Does not own: how one database is reached and how a column of it is read (see
//! `postgres`, `mysql`), what a row means (see `row`). Start reading at [`Sql::user`]. Invariant: the statement never
//! changes; what a Client says is bound to it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures_util::TryStreamExt;
use sqlx::pool::{Pool, PoolOptions};
use sqlx::{AssertSqlSafe, Connection, Database, Encode, Executor, IntoArguments, Type};

use super::row::{Right, Row, own_rules};
use super::{Directory, Found, Question, told};
use crate::authorization::OwnRules;
use crate::config::{Placeholder, SqlConfig};
use crate::outbound::AskError;

/// A database that a statement asks.
pub(super) struct Sql<D: Dialect> {
    options: Options<D>,
    config: SqlConfig,
    /// Made where it is first used, which is on the runtime that it needs.
    pool: OnceLock<Pool<D>>,
    user: Statement,
    rights: Option<Statement>,
}

/// How a connection to it is made.
pub(super) type Options<D> = <<D as Database>::Connection as Connection>::Options;

/// What one database has of its own.
pub(super) trait Dialect: Database {
    /// Its name in the configuration and the log.
    const KEY: &'static str;
    /// Whether a row has to say whose it is.
    const IS_TO_NAME: bool;
    /// A column of a row.
    type Field<'a>: Field;

    /// The columns of a row.
    fn fields(row: &Self::Row) -> Result<Vec<Self::Field<'_>>, AskError>;

    /// Whether an error says that nobody can have the name that a Client has said.
    fn is_nobody(error: &sqlx::Error) -> bool;
}

/// One column of a row, and how it is read.
pub(super) trait Field {
    fn name(&self) -> &str;
    fn is_null(&self) -> bool;
    fn text(&self) -> Result<Option<String>, AskError>;
    fn list(&self) -> Result<Vec<String>, AskError>;
    fn flag(&self) -> Result<Option<bool>, AskError>;
    fn number(&self) -> Result<Option<i64>, AskError>;
}

impl<D: Dialect> Sql<D> {
    /// Connects by `options`; `user` and `rights` are the statements of `config`.
    pub(super) const fn new(
        options: Options<D>,
        config: SqlConfig,
        user: Statement,
        rights: Option<Statement>,
    ) -> Self {
        Self {
            options,
            config,
            pool: OnceLock::new(),
            user,
            rights,
        }
    }

    fn pool(&self) -> &Pool<D> {
        self.pool.get_or_init(|| {
            let ask = &self.config.server.ask;
            PoolOptions::new()
                .max_connections(u32::try_from(ask.at_once).unwrap_or(u32::MAX))
                .acquire_timeout(ask.timeout)
                // Never reached: slowness is the breaker's to tell.
                .acquire_slow_threshold(ask.timeout * 2)
                .connect_lazy_with(self.options.clone())
        })
    }
}

impl<D: Dialect> Sql<D>
where
    D::Arguments: IntoArguments<D>,
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
    String: for<'q> Encode<'q, D> + Type<D>,
{
    /// The first rows that `statement` has for `question`, not more than `most`.
    async fn rows(
        &self,
        statement: &Statement,
        question: &Question,
        most: usize,
    ) -> Result<Vec<D::Row>, sqlx::Error> {
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
        let mut row = read(&D::fields(first)?)?;
        if let Some(rights) = &self.rights {
            let rows = self.rows(rights, question, OwnRules::MAX + 1).await?;
            let rights = rows.iter().map(|row| read_right(&D::fields(row)?));
            let rights: Result<Vec<Right>, AskError> = rights.collect();
            row.rights = Some(own_rules(&rights?, D::KEY));
        }
        Ok(Some(row))
    }
}

impl<D: Dialect> Directory for Sql<D>
where
    D::Arguments: IntoArguments<D>,
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
    String: for<'q> Encode<'q, D> + Type<D>,
{
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
            Err(Failed::Sql(error)) if is_about_data(&error) || D::is_nobody(&error) => {
                return Ok(None);
            }
            Err(Failed::Sql(error)) => return Err(told(&error)),
            Err(Failed::Shape(error)) => return Err(error),
        };
        if D::IS_TO_NAME && row.user_name.is_none() {
            return Err(AskError("the query returns no column username".to_owned()));
        }
        Ok(row.user(&question.user_name, D::KEY))
    }
}

impl<D: Dialect> fmt::Debug for Sql<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", D::KEY, self.config.server.url)
    }
}

/// What a row says of a user; columns of other names are attributes.
fn read(fields: &[impl Field]) -> Result<Row, AskError> {
    let mut row = Row::default();
    let mut has_password = false;
    for field in fields {
        match field.name() {
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

fn read_right(fields: &[impl Field]) -> Result<Right, AskError> {
    let mut right = Right::default();
    for field in fields {
        match field.name() {
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

/// A statement, and what its parameters are, in their order.
#[derive(Debug)]
pub(super) struct Statement {
    text: Arc<str>,
    parameters: Vec<Placeholder>,
}

impl Statement {
    pub(super) fn new((text, parameters): (String, Vec<Placeholder>)) -> Self {
        let text = text.into();
        Self { text, parameters }
    }

    /// It is the operator's, and nothing that a Client has said is put into it.
    fn text(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(Arc::clone(&self.text))
    }
}

/// Why nothing is known of a user.
#[derive(Debug)]
enum Failed {
    /// The database says so.
    Sql(sqlx::Error),
    /// What it has answered is not what was to be asked.
    Shape(AskError),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<AskError> for Failed {
    fn from(error: AskError) -> Self {
        Self::Shape(error)
    }
}

/// SQLSTATE class 22: what a Client has said is not of the type that a statement makes of it. Then nobody has
/// that name, and nothing is wrong with the database.
fn is_about_data(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("22"))
}

/// A condition that was meant and would be left out.
fn unknown_right(name: &str) -> AskError {
    AskError(format!(
        "rights_query returns a column {name:?}: there is name, effect, actions, topic, qos_max, retain"
    ))
}
