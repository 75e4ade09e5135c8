//! Expectations as a report that CI systems read: JUnit XML.

use std::fmt::Write as _;

use super::{failure::Failure, human};
use crate::front::api::dto::policies::{TestReport, Tested};

/// The report. A suite for each policy, a case for each expectation.
pub(super) fn report(report: &TestReport) -> String {
    let TestReport { expectations, failed } = report;
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let count = expectations.len();
    // Writing to a string does not fail.
    let _written = writeln!(xml, "<testsuites name=\"weft policy test\" tests=\"{count}\" failures=\"{failed}\">");
    for suite in expectations.chunk_by(|a, b| a.policy == b.policy) {
        let Some(Tested { policy, .. }) = suite.first() else { continue };
        let failed = suite.iter().filter(|tested| tested.why.is_some()).count();
        let (name, count) = (escape(policy), suite.len());
        let _written = writeln!(xml, "  <testsuite name=\"{name}\" tests=\"{count}\" failures=\"{failed}\">");
        for tested in suite {
            case(&mut xml, tested);
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// The report of expectations that could not be looked at: one case, that has an error. CI would go on with an older
/// report if there were none.
pub(super) fn unread(failure: &Failure) -> String {
    let long: Vec<_> = failure.lines().lines().map(escape).collect();
    let (short, long) = (escape(&failure.to_string()), long.join("\n"));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"weft policy test\" tests=\"1\" failures=\"0\" errors=\"1\">\n  \
         <testsuite name=\"manifests\" tests=\"1\" failures=\"0\" errors=\"1\">\n    \
         <testcase classname=\"manifests\" name=\"read\">\n      <error message=\"{short}\">{long}</error>\n    \
         </testcase>\n  </testsuite>\n</testsuites>\n"
    )
}

fn case(xml: &mut String, Tested { policy, text, source, asked: _, why, by: _ }: &Tested) {
    let mut open = format!("    <testcase classname=\"{}\" name=\"{}\"", escape(policy), escape(text));
    if let Some(source) = source {
        let _written = write!(open, " file=\"{}\"", escape(&source.file));
        let _written = source.line.map_or(Ok(()), |line| write!(open, " line=\"{line}\""));
    }
    let _written = match why {
        None => writeln!(xml, "{open}/>"),
        Some(why) => {
            let at = source.as_ref().map(|source| format!("{}: ", human::source(source))).unwrap_or_default();
            let (short, long) = (escape(why), escape(&format!("{at}{text}: {why}")));
            writeln!(xml, "{open}>\n      <failure message=\"{short}\">{long}</failure>\n    </testcase>")
        }
    };
}

/// Text that XML can hold, in attributes too; what it can not (XML 1.0 section 2.2) is told as code points are.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            ' '..='~' => escaped.push(c),
            other => escaped.extend(other.escape_unicode()),
        }
    }
    escaped
}
