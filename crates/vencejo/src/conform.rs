//! `vencejo conformance`: the rows of the conformance suite against any server, with a report.
//!
//! Owns: its flags, what is printed. Does not own: the rows and how they are run (see the crate `conformance`).
//! Start reading at [`run`]. Invariant: exit code 0 only if no row has failed.

use std::collections::BTreeMap;

use clap::Args;
use conformance::{Report, Suite, Verdict};
use serde_json::json;

use crate::serve;
use crate::tools::Failure;

/// Ask a server row by row whether it keeps the standards; it has to let anonymous clients in over plain TCP
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ConformanceArgs {
    /// HOST or HOST:PORT
    #[arg(value_name = "HOST")]
    server: String,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Let it refuse with another code than the row's, or close without a word
    #[arg(long)]
    lenient: bool,
    /// How many cases run at a time
    #[arg(long, default_value_t = 16)]
    jobs: usize,
    /// Print JSON, every case with its verdict
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `vencejo conformance`.
pub(crate) fn run(args: &ConformanceArgs) -> Result<(), Failure> {
    let failed = |error: String| Failure::new(format!("error: {error}"));
    let mut suite = Suite::embedded().map_err(failed)?;
    if let Some(filter) = &args.filter {
        suite.keep(filter);
    }
    if suite.names().next().is_none() {
        return Err(failed("no case has such a name".to_owned()));
    }
    let has_port = args
        .server
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let server = match has_port {
        true => args.server.clone(),
        false => format!("{}:1883", args.server),
    };
    let address = conformance::resolve(&server).map_err(failed)?;
    // Rather than a row of failures, if nobody is there.
    std::net::TcpStream::connect(address).map_err(|error| failed(format!("{server}: {error}")))?;
    let report = suite.run(address, args.lenient, args.jobs);
    let text = match args.json {
        true => format!("{:#}\n", as_json(&report)),
        false => format!("{}{}", report.text(), by_statement(&report)),
    };
    serve::print(&text);
    match report.counts() {
        [_, _, 0] => Ok(()),
        _ => Err(Failure::new("")),
    }
}

fn as_json(report: &Report) -> serde_json::Value {
    let [passed, skipped, failed] = report.counts();
    let cases = report.outcomes.iter().map(|outcome| {
        let (verdict, reason) = match &outcome.verdict {
            Verdict::Passed => ("passed", None),
            Verdict::Skipped => ("skipped", None),
            Verdict::Failed(reason) => ("failed", Some(reason)),
        };
        json!({ "name": outcome.name, "statements": outcome.statements, "verdict": verdict, "reason": reason })
    });
    let cases: Vec<_> = cases.collect();
    json!({ "passed": passed, "skipped": skipped, "failed": failed, "cases": cases })
}

/// The statements that are not kept, each with how many of its cases say so.
fn by_statement(report: &Report) -> String {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for outcome in &report.outcomes {
        let is_failed = matches!(outcome.verdict, Verdict::Failed(_));
        for statement in &outcome.statements {
            let [all, failed] = counts.entry(statement).or_default();
            *all += 1;
            *failed += usize::from(is_failed);
        }
    }
    let total = counts.len();
    let broken: Vec<_> = counts
        .into_iter()
        .filter(|(_, [_, failed])| *failed > 0)
        .collect();
    let mut text = format!("{} of {total} statements are kept\n", total - broken.len());
    for (statement, [all, failed]) in broken {
        text.push_str(&format!(
            "  {statement:<28} {failed} of {all} cases failed\n"
        ));
    }
    text
}
