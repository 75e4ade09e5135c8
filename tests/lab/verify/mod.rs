//! `lab verify`: every program of the embedded object is loaded on the running kernel, and what that cost is held
//! against the checked-in table.

mod chain;
mod cost;
mod sys;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use weft::kernel::load::Object;

use crate::grid::Grid;
use cost::Cost;
use table::{Series, Table};

/// How to verify.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Write what was found as the new table
    #[arg(long)]
    bless: bool,
}

/// Where the table is in the sources; a binary that was carried elsewhere has the one that it was built with.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/verify.txt");
const BUILT_IN: &str = include_str!("../verify.txt");

/// Loads, prints, compares, and writes the table if asked to.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { bless } = options;
    let (series, mut table) = (series()?, table()?);
    let (costs, mut complaints) = measure(series, &table)?;
    println!("kernel {series}\n{}", grid(series, &table, &costs));
    if *bless {
        if costs.len() != weft::kernel::load::Program::ALL.len() {
            bail!("bless the table: {}", complaints.join("\n"));
        }
        table.bless(series, &costs);
        fs::write(FILE, table.to_string()).with_context(|| format!("write {FILE}"))?;
        println!("blessed: {FILE}");
        complaints = costs.iter().flat_map(|cost| table.complaints(series, cost)).collect();
    } else if !table.knows(series) {
        println!("nothing is known of kernel {series}: `cargo xtask verify --bless` there would write it down");
    }
    if !complaints.is_empty() {
        bail!("verify the programs:\n{}", complaints.join("\n"));
    }
    Ok(())
}

/// As [`run`] in one line, for a list of checks.
pub(crate) fn summary() -> Result<String> {
    let (series, table) = (series()?, table()?);
    let (costs, complaints) = measure(series, &table)?;
    if !complaints.is_empty() {
        bail!("{}", complaints.join("\n"));
    }
    let most = costs.iter().max_by_key(|cost| cost.verified).context("the object has no program")?;
    let deepest = costs.iter().map(|cost| cost.stack).max().unwrap_or_default();
    Ok(format!(
        "{} programs load; {} takes most, {} verified instructions; stack at most {deepest} bytes",
        costs.len(),
        most.program,
        most.verified
    ))
}

fn measure(series: Series, table: &Table) -> Result<(Vec<Cost>, Vec<String>)> {
    let (mut costs, mut complaints) = (Vec::new(), Vec::new());
    for outcome in cost::measure(Object::embedded().bytes())? {
        match outcome {
            Ok(cost) => {
                complaints.extend(table.complaints(series, &cost));
                costs.push(cost);
            }
            Err(error) => complaints.push(format!("{error:#}")),
        }
    }
    Ok((costs, complaints))
}

fn grid(series: Series, table: &Table, costs: &[Cost]) -> Grid {
    let mut grid = Grid::new(1);
    grid.row(["program", "instructions", "verified", "(table)", "stack", "(table)", "machine code", "verified in"]);
    for Cost { program, instructions, verified, stack, jited, microseconds } in costs {
        let known = table.get(series, program);
        let none = || "-".to_owned();
        grid.row([
            program.clone(),
            instructions.to_string(),
            verified.to_string(),
            known.map_or_else(none, |known| known.verified.to_string()),
            stack.to_string(),
            known.map_or_else(none, |known| known.stack.to_string()),
            format!("{jited} bytes"),
            format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100),
        ]);
    }
    grid
}

fn series() -> Result<Series> {
    fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?.parse()
}

fn table() -> Result<Table> {
    let text = if Path::new(FILE).exists() {
        fs::read_to_string(FILE).with_context(|| format!("read {FILE}"))?
    } else {
        BUILT_IN.to_owned()
    };
    text.parse().with_context(|| format!("read {FILE}"))
}
