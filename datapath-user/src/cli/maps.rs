//! Tables, for people.

use super::{
    page::{Page, Span, Tone},
    table::{Table, left, right},
};
use crate::front::api::dto::maps::{Compared, Entry, Map, MapList};

/// Which entries are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// All.
    All,
    /// Those that are not as they should be.
    Differing,
}

pub(super) fn list(page: &mut Page, MapList { maps }: &MapList, shown: Shown) {
    let columns = [left("TABLE"), left("SHAPE"), right("USED"), right("MAX"), right("SHOULD HOLD"), left("DIFFERENCE")];
    let mut table = Table::new(columns);
    for map in maps {
        let Map { name, shape, used, max, desired, entries: _, left_out: _ } = map;
        table.row([
            name.into(),
            shape.into(),
            used.into(),
            max.into(),
            desired.map(Span::from).unwrap_or_default(),
            difference(map),
        ]);
    }
    page.table(&table);
    for map in maps {
        let entries = map.entries.iter().filter(|entry| shown == Shown::All || differs(entry));
        self::entries(page, &map.name, entries);
        if shown == Shown::All && map.left_out > 0 {
            page.toned(Tone::Faint, format!("{} more are not shown: use --limit", map.left_out));
        }
    }
}

fn entries<'a>(page: &mut Page, name: &str, entries: impl Iterator<Item = &'a Entry>) {
    for (at, Entry { key, value, compared, desired }) in entries.enumerate() {
        if at == 0 {
            page.gap();
            page.toned(Tone::Strong, name);
        }
        let (tone, mark) = match compared {
            Compared::Unplanned | Compared::Same => (Tone::Plain, ' '),
            Compared::Missing => (Tone::Bad, '-'),
            Compared::Extra => (Tone::Bad, '+'),
            Compared::Different => (Tone::Bad, '!'),
        };
        let value = if value.is_empty() { String::new() } else { format!(" => {value}") };
        let desired = desired.as_ref().map(|desired| format!("  should be => {desired}")).unwrap_or_default();
        page.toned(tone, format!("{mark} {key}{value}{desired}"));
    }
}

fn differs(entry: &Entry) -> bool {
    match entry.compared {
        Compared::Unplanned | Compared::Same => false,
        Compared::Missing | Compared::Extra | Compared::Different => true,
    }
}

fn difference(map: &Map) -> Span {
    if map.desired.is_none() {
        return Span::default();
    }
    let count = |what| map.entries.iter().filter(|entry| entry.compared == what).count();
    let kinds = [(Compared::Missing, "missing"), (Compared::Extra, "extra"), (Compared::Different, "different")];
    let found = kinds.into_iter().map(|(what, name)| (count(what), name)).filter(|(count, _)| *count > 0);
    let found: Vec<_> = found.map(|(count, name)| format!("{count} {name}")).collect();
    if found.is_empty() {
        return Span::new(Tone::Good, "none");
    }
    // Those that differ come first: if there is one that does not, all are there.
    let cut = map.left_out > 0 && map.entries.iter().all(differs);
    Span::new(Tone::Bad, format!("{}{}", if cut { "at least " } else { "" }, found.join(", ")))
}
