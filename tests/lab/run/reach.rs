//! Who reaches whom: a real request for every pair of containers, over both families, and the table of it.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;

use anyhow::{Result, bail};

use super::servers::{STORE_PORT, WEB_PORT, ask, get};
use crate::cluster::Container;
use crate::grid::Grid;

/// A container of the example, and what it serves.
pub(super) struct Party {
    pub(super) app: &'static str,
    pub(super) role: &'static str,
    pub(super) name: &'static str,
    /// Counted from 0.
    pub(super) host: usize,
    pub(super) container: Container,
}

/// What came of a request over each family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell([Answer; 2]);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The right answer.
    Answered,
    /// None, or a refusal.
    Not,
    /// Another answer.
    Wrong(String),
}

/// The cells by client and server; none where they are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    names: Vec<String>,
    servers: Vec<String>,
    cells: Vec<Vec<Option<Cell>>>,
}

impl Party {
    /// `shop/web-1`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.app, self.name)
    }

    pub(super) fn port(&self) -> u16 {
        if self.role == "web" { WEB_PORT } else { STORE_PORT }
    }

    /// Where it serves, over IPv4 and IPv6.
    pub(super) fn addresses(&self) -> [SocketAddr; 2] {
        let Container { v4, v6, namespace: _ } = self.container;
        [SocketAddr::new(v4.into(), self.port()), SocketAddr::new(v6.into(), self.port())]
    }

    fn request(&self, from: &Self, family: usize) -> Answer {
        let to = self.addresses()[family];
        let (answer, right) = if self.role == "web" {
            (from.container.namespace.run(|| get(to, "/")), format!("hello from {}", self.name))
        } else {
            (from.container.namespace.run(|| ask(to, "PING")), "PONG".to_owned())
        };
        match answer {
            Ok(answer) if answer == right => Answer::Answered,
            Ok(answer) => Answer::Wrong(answer),
            Err(error) if is_refusal(error.kind()) => Answer::Not,
            Err(error) => Answer::Wrong(error.to_string()),
        }
    }
}

/// What a firewall may do to a request.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TimedOut
            | ErrorKind::WouldBlock
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
    )
}

impl Reach {
    /// Asks everybody everything, all at once.
    pub(super) fn probe(parties: &[Party]) -> Result<Self> {
        thread::scope(|scope| {
            let mut asked = Vec::new();
            for (row, from) in parties.iter().enumerate() {
                for (column, to) in parties.iter().enumerate().filter(|(column, _)| *column != row) {
                    let [v4, v6] = [0, 1].map(|family| scope.spawn(move || to.request(from, family)));
                    asked.push((row, column, v4, v6));
                }
            }
            let mut reach = Self::empty(parties);
            for (row, column, v4, v6) in asked {
                let (Ok(v4), Ok(v6)) = (v4.join(), v6.join()) else { bail!("a thread that asks has panicked") };
                reach.cells[row][column] = Some(Cell([v4, v6]));
            }
            Ok(reach)
        })
    }

    /// What it should be: a pair is reached if `allowed`.
    pub(super) fn expected(parties: &[Party], allowed: impl Fn(&Party, &Party) -> bool) -> Self {
        let mut reach = Self::empty(parties);
        for (row, from) in parties.iter().enumerate() {
            for (column, to) in parties.iter().enumerate().filter(|(column, _)| *column != row) {
                let answer = if allowed(from, to) { Answer::Answered } else { Answer::Not };
                reach.cells[row][column] = Some(Cell([answer.clone(), answer]));
            }
        }
        reach
    }

    /// The cells in which two tables differ, in words: what is here, and what is there.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (row, from) in self.names.iter().enumerate() {
            for (column, to) in self.servers.iter().enumerate() {
                if let (Some(here), Some(there)) = (&self.cells[row][column], &other.cells[row][column])
                    && here != there
                {
                    differences.push(format!("{from} -> {to}: {here}, not {there}"));
                }
            }
        }
        differences
    }

    fn empty(parties: &[Party]) -> Self {
        let count = parties.len();
        let servers = parties.iter().map(|party| format!("{}:{}", party.name(), party.port())).collect();
        Self { names: parties.iter().map(Party::name).collect(), servers, cells: vec![vec![None; count]; count] }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut grid = Grid::new(1 + self.servers.len());
        grid.row(std::iter::once("from, to").chain(self.servers.iter().map(String::as_str)));
        for (name, cells) in self.names.iter().zip(&self.cells) {
            let shown = cells.iter().map(|cell| cell.as_ref().map_or_else(|| ".".into(), ToString::to_string));
            grid.row(std::iter::once(name.clone()).chain(shown));
        }
        grid.fmt(f)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([v4, v6]) = self;
        if v4 == v6 { write!(f, "{v4}") } else { write!(f, "IPv4 {v4}, IPv6 {v6}") }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("ok"),
            // A long dash: it is seen at a glance.
            Self::Not => f.write_str("\u{2014}"),
            Self::Wrong(answer) => write!(f, "{answer:?}"),
        }
    }
}
