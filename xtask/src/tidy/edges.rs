//! Which module names which. Owns the reading of `crate::`, `super::` and `weft_common::` paths in datapath-user/src.

use super::{
    Finding,
    source::{Source, Token, tokens},
};

const ROOT: &str = "datapath-user/src/";

/// The crate that both sides of the kernel boundary share, as a module of the table.
const SHARED: (&str, &str) = ("weft_common", "common");

/// They put the others together.
const UNBOUND: [&str; 3] = ["lib", "bin", "daemon"];

/// A path that a file names, from the crate's root.
#[derive(Debug, PartialEq)]
struct Named {
    line: usize,
    path: Vec<String>,
}

/// The edges of a file that the table does not have. Test modules may name what they like.
pub(super) fn check(source: &Source, table: &[(&str, &[&str])]) -> Vec<Finding> {
    let Some(file) = source.path.strip_prefix(ROOT) else {
        return Vec::new();
    };
    let home = module_of(file);
    let from = home.first().map_or("lib", String::as_str);
    if UNBOUND.contains(&from) {
        return Vec::new();
    }
    let allowed = table.iter().find(|(module, _)| *module == from).map_or(&[][..], |(_, to)| *to);
    let mut findings = Vec::new();
    for Named { line, path } in named(&source.product(), &home) {
        let inside = path.first().is_some_and(|to| to == from);
        if !inside && !allowed.iter().any(|to| starts_with(&path, to)) {
            let shown = path.iter().take(2).map(String::as_str).collect::<Vec<_>>().join("::");
            let what = format!("edge {from} -> {shown} is not in the table of xtask/src/tidy.rs");
            findings.push(Finding::new(&source.path, line, what));
        }
    }
    findings
}

fn starts_with(path: &[String], prefix: &str) -> bool {
    prefix.split("::").enumerate().all(|(at, part)| path.get(at).is_some_and(|have| have == part))
}

/// `plan/rules.rs` is module plan::rules, `plan/mod.rs` is plan, `lib.rs` is the root.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    stem.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).map(str::to_owned).collect()
}

/// Every path of blanked code, seen from the module it is in.
fn named(code: &str, home: &[String]) -> Vec<Named> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut module = home.to_vec();
    // The depths of braces at which inline modules began.
    let mut inline = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some((line, token)) = tokens.get(at) {
        let is_path = at.checked_sub(1).is_none_or(|before| tokens[before].1 != Token::Path)
            && tokens.get(at + 1).is_some_and(|(_, next)| *next == Token::Path);
        match token {
            Token::Sign('{') => {
                if let Some(name) = inline_module(&tokens[..at]) {
                    module.push(name);
                    inline.push(depth);
                }
                depth += 1;
            }
            Token::Sign('}') => {
                depth = depth.saturating_sub(1);
                if inline.last() == Some(&depth) {
                    inline.pop();
                    module.pop();
                }
            }
            Token::Word(word) if is_path => {
                if let Some(base) = base(word, &module) {
                    let mut tree = Tree { tokens: &tokens, at: at + 1, found: &mut found, line: *line };
                    tree.read(&base, &module);
                    at = tree.at;
                    continue;
                }
            }
            Token::Word(_) | Token::Path | Token::Sign(_) => {}
        }
        at += 1;
    }
    found
}

/// Whether an open brace comes after `mod name`.
fn inline_module(before: &[(usize, Token)]) -> Option<String> {
    match before {
        [.., (_, Token::Word(keyword)), (_, Token::Word(name))] if keyword == "mod" => Some(name.clone()),
        _ => None,
    }
}

/// Where a path that starts with this word starts; other words are names in scope.
fn base(word: &str, module: &[String]) -> Option<Vec<String>> {
    match word {
        "crate" => Some(Vec::new()),
        "self" => Some(module.to_vec()),
        "super" => Some(module.split_last().map_or(Vec::new(), |(_, parent)| parent.to_vec())),
        word if word == SHARED.0 => Some(vec![SHARED.1.to_owned()]),
        _ => None,
    }
}

/// A path and the groups below it: `::a::{b, c::*}`.
struct Tree<'a> {
    tokens: &'a [(usize, Token)],
    /// The next token to read.
    at: usize,
    found: &'a mut Vec<Named>,
    line: usize,
}

impl Tree<'_> {
    /// Reads from the `::` after `path`, to behind the tree.
    fn read(&mut self, path: &[String], module: &[String]) {
        let mut path = path.to_vec();
        while self.eat(&Token::Path) {
            match self.peek() {
                Some(Token::Word(word)) if word == "super" => {
                    path.pop();
                    self.at += 1;
                }
                Some(Token::Word(word)) => {
                    path.push(word);
                    self.at += 1;
                }
                Some(Token::Sign('{')) => {
                    self.at += 1;
                    self.group(&path, module);
                    return;
                }
                Some(Token::Sign('*')) => {
                    self.at += 1;
                    break;
                }
                // Type arguments.
                Some(Token::Sign(_) | Token::Path) | None => break,
            }
        }
        if path.is_empty() {
            path.push("*".to_owned());
        }
        self.found.push(Named { line: self.line, path });
    }

    fn group(&mut self, path: &[String], module: &[String]) {
        while let Some(token) = self.peek() {
            self.line = self.tokens[self.at].0;
            self.at += 1;
            match token {
                Token::Sign('}') => return,
                // The second half of `a as b`.
                Token::Word(word) if word == "as" => self.at += 1,
                Token::Word(word) => {
                    let mut path = path.to_vec();
                    if word != "self" {
                        path.push(word);
                    }
                    self.read(&path, module);
                }
                Token::Sign('*') => self.read(path, module),
                Token::Sign(_) | Token::Path => {}
            }
        }
    }

    fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).map(|(_, token)| token.clone())
    }

    fn eat(&mut self, token: &Token) -> bool {
        let here = self.peek().as_ref() == Some(token);
        self.at += usize::from(here);
        here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_the_root() {
        let check = |file: &str, text: &str, expect: &[&str]| {
            let source = Source::new("x.rs", text);
            let found = named(&source.product(), &module_of(file));
            let found: Vec<_> = found.iter().map(|named| named.path.join("::")).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("plan/mod.rs", "use crate::model::App;", &["model::App"]);
        check(
            "plan/mod.rs",
            "use crate::{model::{App, policy::*}, store::self, status as s};",
            &["model::App", "model::policy", "store::self", "status"],
        );
        check(
            "plan/mod.rs",
            "fn f() -> crate::kernel::Link { x::<crate::model::App>() }",
            &["kernel::Link", "model::App"],
        );
        check("plan/rules.rs", "use super::super::kernel;\nuse super::routes;", &["kernel", "plan::routes"]);
        check("status.rs", "use super::kernel::Link;", &["kernel::Link"]);
        check("status.rs", "mod a { use super::super::kernel; } use super::store;", &["kernel", "store"]);
        check("status.rs", "use crate::*;", &["*"]);
        check("status.rs", "use weft_common::policy::decide;", &["common::policy::decide"]);
        check("status.rs", "pub(crate) struct A; // crate::kernel\nconst S: &str = \"crate::kernel\";", &[]);
        check("status.rs", "use other::crate_name::x; use tokio::sync;", &[]);
        check("status.rs", "#[cfg(test)]\nmod tests { use crate::kernel; }", &[]);
    }

    #[test]
    fn an_edge_has_to_be_in_the_table() {
        const TABLE: &[(&str, &[&str])] = &[("plan", &["model"]), ("cli", &["front::api"])];
        let check = |file: &str, text: &str, expect: &[(usize, &str)]| {
            let found = check(&Source::new(&format!("{ROOT}{file}"), text), TABLE);
            let found: Vec<_> = found.iter().map(|f| (f.line, f.what.split(" is").next().unwrap_or(""))).collect();
            assert_eq!(found, expect, "{file}: {text}");
        };
        check("plan/mod.rs", "use crate::model::App;\nuse crate::plan::rules;", &[]);
        check(
            "plan/mod.rs",
            "use crate::{\n    model::App,\n    kernel::Link,\n};",
            &[(3, "edge plan -> kernel::Link")],
        );
        check("cli/app.rs", "use crate::front::{api::Client, docker};", &[(1, "edge cli -> front::docker")]);
        check("dns.rs", "use crate::store;", &[(1, "edge dns -> store")]);
        check("daemon.rs", "use crate::kernel;", &[]);
        check("lib.rs", "pub use crate::kernel::x;", &[]);
        check("bin/weftd.rs", "use crate::kernel;", &[]);
    }
}
