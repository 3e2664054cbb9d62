//! Statements that a database is asked with, and parameters that a login fills.
//!
//! Owns: [`Statement`], what both databases mean by their errors. Does not own: connections and columns (see
//! `postgres`, `mysql`). Start reading at [`Statement`]. Invariant: the text never changes.

use std::sync::Arc;

use sqlx::AssertSqlSafe;

use crate::config::Placeholder;
use crate::outbound::AskError;

/// A statement, and what its parameters are, in their order.
#[derive(Debug)]
pub(super) struct Statement {
    text: Arc<str>,
    pub(super) parameters: Vec<Placeholder>,
}

impl Statement {
    pub(super) fn new((text, parameters): (String, Vec<Placeholder>)) -> Self {
        let text = text.into();
        Self { text, parameters }
    }

    /// It is the operator's, and nothing that a Client has said is put into it.
    pub(super) fn text(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(Arc::clone(&self.text))
    }
}

/// Why nothing is known of a user.
#[derive(Debug)]
pub(super) enum Failed {
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
pub(super) fn is_about_data(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("22"))
}

/// A condition that was meant and would be left out.
pub(super) fn unknown_right(name: &str) -> AskError {
    AskError(format!(
        "rights_query returns a column {name:?}: there is name, effect, actions, topic, qos_max, retain"
    ))
}
