//! `vencejo store check`, `stat` and `salvage`: what is in a data folder that no server uses.
//!
//! Owns: what they print and their exit codes. Does not own: the reading (see `store`).
//! Start reading at [`check`]. Invariant: nothing in the folder is changed but its
//! lock; exit code 0 of [`check`] means that every
//! byte of the log was read and no damage is new.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use server::persist::{self, DataFolder};
use store::disk::RealDisk;
use store::{Checked, Damage, OpenError, SalvageError, Salvaged, Stat, TornTail};

use crate::serve::{self, EX_DATAERR};
use crate::storage::{failed, in_use};
use crate::tools::Failure;

/// `vencejo store check`.
pub(crate) fn check(data: &Path, as_json: bool) -> Result<(), Failure> {
    let (_lock, disk) = open(data)?;
    let checked = store::check(&disk).map_err(|error| unreadable(&error))?;
    serve::print(&match as_json {
        true => checked_json(&checked),
        false => checked_text(data, &checked),
    });
    if checked.is_sound() {
        return Ok(());
    }
    Err(Failure {
        text: "Error: something is missing or damaged, see above.".to_owned(),
        code: EX_DATAERR,
    })
}

/// `vencejo store stat`.
pub(crate) fn stat(data: &Path, as_json: bool) -> Result<(), Failure> {
    let (_lock, disk) = open(data)?;
    let stat = store::stat(&disk).map_err(|error| unreadable(&error))?;
    serve::print(&match as_json {
        true => stat_json(&stat),
        false => stat_text(&stat),
    });
    Ok(())
}

/// `vencejo store salvage`.
pub(crate) fn salvage(data: &Path, target: &Path, as_json: bool) -> Result<(), Failure> {
    let lock = DataFolder::lock_existing(data).map_err(|error| in_use(&error))?;
    let salvaged = persist::salvage(&lock, target).map_err(|error| match error {
        SalvageError::Read(error) => unreadable(&error),
        error => failed(&error),
    })?;
    serve::print(&match as_json {
        true => salvaged_json(data, target, &salvaged),
        false => salvaged_text(data, target, &salvaged),
    });
    Ok(())
}

/// The folder, not to be used by any other process for as long as the first of the two lives.
fn open(data: &Path) -> Result<(DataFolder, RealDisk), Failure> {
    let lock = DataFolder::lock_existing(data).map_err(|error| in_use(&error))?;
    let disk = RealDisk::open(data).map_err(|error| failed(&error))?;
    Ok((lock, disk))
}

fn unreadable(error: &OpenError) -> Failure {
    match error {
        OpenError::Disk { .. } => failed(error),
        error => Failure {
            text: format!("Error: {error}."),
            code: EX_DATAERR,
        },
    }
}

fn checked_text(data: &Path, checked: &Checked) -> String {
    let mut text = format!(
        "{}: {} segments, {} frames, {} records, {} bytes\n",
        data.display(),
        checked.segments,
        checked.frames,
        checked.records,
        checked.bytes
    );
    add_findings(&mut text, checked.torn_tail.as_ref(), &checked.damage);
    if checked.known_holes > 0 {
        add(
            &mut text,
            "known",
            &format_args!("{} places marked as missing", checked.known_holes),
        );
    }
    for alarm in &checked.alarms {
        add(&mut text, "ALARM", &alarm.text);
    }
    let is_known = checked.known_holes > 0 || !checked.alarms.is_empty();
    text.push_str(match (checked.is_sound(), is_known) {
        (true, false) => "sound: nothing is missing\n",
        (true, true) => "sound but for what is named above, which earlier starts have found\n",
        (false, _) => "",
    });
    text
}

fn salvaged_text(data: &Path, target: &Path, salvaged: &Salvaged) -> String {
    let mut text = format!(
        "{} has what is intact in {}: {} records in {} frames, {} bytes\n",
        target.display(),
        data.display(),
        salvaged.records,
        salvaged.frames,
        salvaged.bytes
    );
    add_findings(&mut text, salvaged.torn_tail.as_ref(), &salvaged.damage);
    text
}

fn salvaged_json(data: &Path, target: &Path, salvaged: &Salvaged) -> String {
    let damage: Vec<String> = salvaged.damage.iter().map(ToString::to_string).collect();
    let value = json!({
        "data": data.display().to_string(),
        "new": target.display().to_string(),
        "frames": salvaged.frames,
        "records": salvaged.records,
        "bytes": salvaged.bytes,
        "torn_tail": salvaged.torn_tail.as_ref().map(ToString::to_string),
        "damage": damage,
    });
    format!("{value}\n")
}

fn checked_json(checked: &Checked) -> String {
    let damage: Vec<String> = checked.damage.iter().map(ToString::to_string).collect();
    let alarms: Vec<&str> = checked.alarms.iter().map(|alarm| &*alarm.text).collect();
    let value = json!({
        "segments": checked.segments,
        "frames": checked.frames,
        "records": checked.records,
        "bytes": checked.bytes,
        "is_sound": checked.is_sound(),
        "torn_tail": checked.torn_tail.as_ref().map(ToString::to_string),
        "damage": damage,
        "known_holes": checked.known_holes,
        "alarms": alarms,
    });
    format!("{value}\n")
}

fn add_findings(text: &mut String, torn: Option<&TornTail>, damage: &[Damage]) {
    if let Some(torn) = torn {
        add(text, "harmless", torn);
    }
    for damage in damage {
        add(text, "DAMAGE", damage);
    }
}

fn add(text: &mut String, what: &str, value: &dyn std::fmt::Display) {
    writeln!(text, "  {what:<9} {value}").expect("invariant: a String takes any text");
}

fn stat_json(stat: &Stat) -> String {
    let counts = &stat.counts;
    let segments = stat.segments.iter().map(|of| {
        json!({
            "file": of.file, "used_bytes": of.used_bytes, "live_bytes": of.live_bytes,
            "frames": of.frames, "first_frame": of.first_lsn,
        })
    });
    let kinds = stat
        .kinds
        .iter()
        .map(|(name, kind)| json!({ "record": name, "count": kind.count, "bytes": kind.bytes }));
    let value = json!({
        "sessions": counts.sessions,
        "retained": counts.retained,
        "messages": counts.messages,
        "deliveries": counts.entries,
        "live_bytes": stat.live_bytes,
        "spare_files": stat.spares,
        "set_aside": stat.set_aside.len(),
        "last_frame": stat.last_lsn,
        "durable_frame": stat.durable_lsn,
        "segments": segments.collect::<Vec<_>>(),
        "records": kinds.collect::<Vec<_>>(),
    });
    format!("{value}\n")
}

fn stat_text(stat: &Stat) -> String {
    let counts = &stat.counts;
    let mut text = format!(
        "{} sessions, {} retained messages, {} queued messages for {} deliveries\n\
         {} bytes that count; {} spare files; {} files set aside; frames up to {}, durable up to {}\n\n",
        counts.sessions,
        counts.retained,
        counts.messages,
        counts.entries,
        stat.live_bytes,
        stat.spares,
        stat.set_aside.len(),
        stat.last_lsn,
        stat.durable_lsn
    );
    let mut line = |cells: [String; 5]| {
        let [name, rest @ ..] = cells;
        let rest = rest.map(|cell| format!("{cell:>14}")).concat();
        writeln!(text, "{name:<24}{rest}").expect("invariant: a String takes any text");
    };
    let heads = [
        "segment",
        "bytes used",
        "that count",
        "frames",
        "first frame",
    ];
    line(heads.map(str::to_owned));
    for segment in &stat.segments {
        let numbers = [
            segment.used_bytes,
            segment.live_bytes,
            segment.frames,
            segment.first_lsn,
        ];
        let [used, live, frames, first] = numbers.map(|number| number.to_string());
        line([segment.file.clone(), used, live, frames, first]);
    }
    text.push('\n');
    for (name, kind) in &stat.kinds {
        let records = format!(
            "{name:<24}{:>14} records {:>14} bytes",
            kind.count, kind.bytes
        );
        text.push_str(&records);
        text.push('\n');
    }
    text
}
