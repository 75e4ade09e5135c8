//! Tables, for people.

use super::{
    page::{Page, Span, Tone},
    table::{Table, left, right},
};
use crate::front::api::dto::maps::{Compared, Entry, Map, MapList};

pub(super) fn list(page: &mut Page, MapList { maps }: &MapList) {
    let columns = [left("TABLE"), left("SHAPE"), right("USED"), right("MAX"), right("SHOULD HOLD"), left("DIFFERENCE")];
    let mut table = Table::new(columns);
    for Map { name, shape, used, max, desired, entries, left_out: _ } in maps {
        table.row([
            name.into(),
            shape.into(),
            used.into(),
            max.into(),
            desired.map(Span::from).unwrap_or_default(),
            difference(entries, desired.is_some()),
        ]);
    }
    page.table(&table);
    for map in maps.iter().filter(|map| !map.entries.is_empty()) {
        page.gap();
        self::entries(page, map);
    }
}

fn entries(page: &mut Page, map: &Map) {
    page.toned(Tone::Strong, &map.name);
    for Entry { key, value, compared, desired } in &map.entries {
        let (tone, mark) = match compared {
            Compared::Unplanned | Compared::Same => (Tone::Plain, ' '),
            Compared::Missing => (Tone::Bad, '-'),
            Compared::Extra => (Tone::Bad, '+'),
            Compared::Different => (Tone::Bad, '!'),
        };
        let desired = desired.as_ref().map(|desired| format!("  should be: {desired}")).unwrap_or_default();
        page.toned(tone, format!("{mark} {key} => {value}{desired}"));
    }
    if map.left_out > 0 {
        page.toned(Tone::Faint, format!("{} more are not shown: use --limit", map.left_out));
    }
}

fn difference(entries: &[Entry], planned: bool) -> Span {
    if !planned {
        return Span::default();
    }
    let count = |what| entries.iter().filter(|entry| entry.compared == what).count();
    let kinds = [
        (Compared::Missing, "missing"),
        (Compared::Extra, "extra"),
        (Compared::Different, "different"),
    ];
    let found: Vec<_> = kinds.into_iter().map(|(what, name)| (count(what), name)).filter(|(n, _)| *n > 0).collect();
    if found.is_empty() {
        return Span::new(Tone::Good, "none");
    }
    let found: Vec<_> = found.into_iter().map(|(n, name)| format!("{n} {name}")).collect();
    Span::new(Tone::Bad, found.join(", "))
}
