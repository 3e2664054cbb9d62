//! What has changed between two values, line by line.
//!
//! Owns: [`changes`]. Does not own: how a value becomes lines (see `shown`), colours. Start reading at [`changes`].
//! Invariant: without the lines that are gone it is the new value, without those that came the old one; the work is bounded.

/// A line, and on which side it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// In both.
    Same(&'a str),
    /// In the old one only.
    Gone(&'a str),
    /// In the new one only.
    Came(&'a str),
}

/// What is to be done to `old` to get `new`.
pub(super) fn changes<'a>(old: &'a [String], new: &'a [String]) -> Vec<Change<'a>> {
    let front = common(old.iter(), new.iter());
    let (head, old) = old.split_at(front);
    let (_, new) = new.split_at(front);
    let back = common(old.iter().rev(), new.iter().rev());
    let (old, tail) = old.split_at(old.len().saturating_sub(back));
    let (new, _) = new.split_at(new.len().saturating_sub(back));
    let mut all: Vec<Change<'a>> = head.iter().map(|line| Change::Same(line)).collect();
    between(old, new, &mut all);
    all.extend(tail.iter().map(|line| Change::Same(line)));
    all
}

fn common<'a>(
    old: impl Iterator<Item = &'a String>,
    new: impl Iterator<Item = &'a String>,
) -> usize {
    old.zip(new).take_while(|(old, new)| old == new).count()
}

/// By the longest lines that stay; all of them new where that would take too long.
fn between<'a>(old: &'a [String], new: &'a [String], all: &mut Vec<Change<'a>>) {
    let width = new.len() + 1;
    if old.len().saturating_mul(new.len()) > CELLS_MAX {
        all.extend(old.iter().map(|line| Change::Gone(line)));
        all.extend(new.iter().map(|line| Change::Came(line)));
        return;
    }
    // kept[i * width + j]: how many lines stay of old[i..] and new[j..].
    let mut kept = vec![0_u32; (old.len() + 1) * width];
    let look = |kept: &[u32], row: usize, column: usize| {
        kept.get(row * width + column).copied().unwrap_or(0)
    };
    for (row, before) in old.iter().enumerate().rev() {
        for (column, after) in new.iter().enumerate().rev() {
            let best = if before == after {
                look(&kept, row + 1, column + 1) + 1
            } else {
                look(&kept, row + 1, column).max(look(&kept, row, column + 1))
            };
            if let Some(cell) = kept.get_mut(row * width + column) {
                *cell = best;
            }
        }
    }
    let (mut row, mut column) = (0, 0);
    loop {
        match (old.get(row), new.get(column)) {
            (Some(before), Some(after)) if before == after => {
                all.push(Change::Same(before));
                (row, column) = (row + 1, column + 1);
            }
            (Some(before), after) => {
                let is_gone =
                    after.is_none() || look(&kept, row + 1, column) >= look(&kept, row, column + 1);
                match after.filter(|_| !is_gone) {
                    Some(after) => {
                        all.push(Change::Came(after));
                        column += 1;
                    }
                    None => {
                        all.push(Change::Gone(before));
                        row += 1;
                    }
                }
            }
            (None, Some(after)) => {
                all.push(Change::Came(after));
                column += 1;
            }
            (None, None) => return,
        }
    }
}

/// So many pairs of lines are compared: a moment's work.
const CELLS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn shown(old: &str, new: &str) -> String {
        let (old, new) = (lines(old), lines(new));
        let changes = changes(&old, &new);
        let of = |change: &Change<'_>| match change {
            Change::Same(line) => format!(" {line}"),
            Change::Gone(line) => format!("-{line}"),
            Change::Came(line) => format!("+{line}"),
        };
        changes.iter().map(of).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_stays_is_told_from_what_goes_and_comes() {
        assert_eq!(shown("", ""), "");
        assert_eq!(shown("a", "a"), " a");
        assert_eq!(shown("21.5", "21.6"), "-21.5\n+21.6");
        assert_eq!(
            shown("{\na\nb\n}", "{\na\nc\nd\n}"),
            " {\n a\n-b\n+c\n+d\n }"
        );
        assert_eq!(shown("a\nb\nc", "b\nc\nx"), "-a\n b\n c\n+x");
        assert_eq!(shown("a\na", "a"), " a\n-a");
    }

    #[test]
    fn both_sides_can_be_had_back_whatever_their_size() {
        let mut seed = 7_u32;
        let mut next = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        for length in [0, 1, 3, 10, 40, 1100] {
            let mut side = || -> Vec<String> {
                let count = if length == 0 { 0 } else { length - next(2) };
                (0..count).map(|_| next(4).to_string()).collect()
            };
            let (old, new) = (side(), side());
            let all = changes(&old, &new);
            let pick = |skip: fn(&Change<'_>) -> bool| -> Vec<String> {
                let kept = all.iter().filter(|change| !skip(change));
                kept.map(|change| match change {
                    Change::Same(line) | Change::Gone(line) | Change::Came(line) => {
                        (*line).to_owned()
                    }
                })
                .collect()
            };
            assert_eq!(pick(|change| matches!(change, Change::Came(_))), old);
            assert_eq!(pick(|change| matches!(change, Change::Gone(_))), new);
        }
    }
}
