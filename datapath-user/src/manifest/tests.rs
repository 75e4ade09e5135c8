mod kubernetes;
mod native;
mod schema;
mod yaml;

use super::*;

/// What one file says.
fn said(text: &str) -> Manifest {
    read_all(&[text]).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

/// What is wrong with one file: `LINE:COLUMN: SENTENCE`, each.
fn faults(text: &str) -> Vec<String> {
    let problems = read_all(&[text]).expect_err(text);
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(lines.iter().all(|line| line.bytes().all(|b| (b' '..=b'~').contains(&b))), "{lines:?}");
    lines.iter().map(|line| line.strip_prefix("0.yaml:").unwrap().to_owned()).collect()
}

/// That a file has this one fault.
fn check_fault(text: &str, expect: &str) {
    let faults = faults(text);
    let [fault] = faults.as_slice() else { panic!("{text}\n{faults:#?}") };
    assert!(fault.contains(expect), "{text}\n{fault}");
}

/// The rules of the one policy that a file has.
fn rules(text: &str) -> Vec<String> {
    let manifest = said(text);
    let [(_, rules)] = manifest.policies.values().collect::<Vec<_>>()[..] else { panic!("not one policy in {text}") };
    rules.iter().map(ToString::to_string).collect()
}

fn read_all(texts: &[&str]) -> Result<Manifest, Vec<Problem>> {
    let file = |(at, text): (usize, &&str)| File { name: format!("{at}.yaml").into(), text: (*text).to_owned() };
    read(&texts.iter().enumerate().map(file).collect::<Vec<_>>())
}

/// The tables of `docs/policy.md` are those of this module. Written anew by `WEFT_BLESS=1 cargo test -p weft --lib the_reference`.
#[test]
fn the_reference_has_the_tables_of_the_code() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let reference = root.join("docs/policy.md");
    let text = std::fs::read_to_string(&reference).unwrap();
    let mut made = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("<!-- from ") {
        let (source, after) = after.split_once(" -->").unwrap();
        let (_, after) = after.split_once("<!-- end -->").unwrap();
        let code = std::fs::read_to_string(root.join(source)).unwrap();
        let docs =
            code.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
        // The first line says what the module is.
        let docs: Vec<_> = docs.skip_while(|line| !line.is_empty()).collect();
        let docs = docs.join("\n").replace("[`tiers`]", "below").replace("[`network_policy`]", "below");
        made.extend([before, "<!-- from ", source, " -->\n", docs.trim_end(), "\n<!-- end -->"]);
        rest = after;
    }
    made += rest;
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(&reference, &made).unwrap();
    }
    assert!(made == text, "docs/policy.md is not what the code says: see this test");
}
