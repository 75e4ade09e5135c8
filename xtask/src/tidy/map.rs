//! The map of the code in README.md names what is there.

use super::{Finding, source::has_word};

const README: &str = "README.md";

/// `modules` are the files and folders at the top of datapath-user/src.
pub(super) fn check(readme: &str, modules: &[String]) -> Vec<Finding> {
    let Some((line, map)) = section(readme) else {
        return vec![Finding::new(README, 1, "no heading with the word `map` is found")];
    };
    let stem = |module: &String| module.strip_suffix(".rs").unwrap_or(module).to_owned();
    let missing = modules.iter().filter(|module| !has_word(&map, &stem(module)));
    missing
        .map(|module| Finding::new(README, line, format!("the map does not name datapath-user/src/{module}")))
        .collect()
}

/// The lines below the heading of the map, up to the next heading that is not below it.
fn section(readme: &str) -> Option<(usize, String)> {
    let mut fenced = false;
    let mut found: Option<(usize, usize, String)> = None;
    for (index, line) in readme.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        // In a block of shell a `#` begins a comment.
        let level = if fenced { 0 } else { line.chars().take_while(|c| *c == '#').count() };
        match &mut found {
            Some((_, top, _)) if level > 0 && level <= *top => break,
            Some((_, _, map)) => {
                map.push_str(line);
                map.push('\n');
            }
            None if level > 0 && has_word(&line.to_lowercase(), "map") => {
                found = Some((index + 1, level, String::new()));
            }
            None => {}
        }
    }
    found.map(|(line, _, map)| (line, map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_is_on_the_map() {
        let modules = ["plan", "status.rs"].map(str::to_owned);
        let check = |readme: &str, expect: &[(usize, &str)]| {
            let found = check(readme, &modules);
            let found: Vec<_> = found.iter().map(|f| (f.line, f.what.as_str())).collect();
            assert_eq!(found, expect, "{readme}");
        };
        check("# weft\n## Map of the code\n```\n# user\nplan/      a\nstatus.rs  b\n```\n## Next\n", &[]);
        check(
            "## Map of the code\n### User\nplan/\n## Next\nstatus.rs\n",
            &[(1, "the map does not name datapath-user/src/status.rs")],
        );
        check("# weft\nplan status\n", &[(1, "no heading with the word `map` is found")]);
    }
}
