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
