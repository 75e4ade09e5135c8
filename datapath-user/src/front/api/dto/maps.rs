//! What the tables hold.

use serde::{Deserialize, Serialize};

/// What tables hold, and how that differs from what they should.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShowMaps {
    /// Which; without it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Not more entries than so many of each; without it, some hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapList {
    /// In the order of their declaration.
    pub maps: Vec<Map>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Its name.
    pub name: String,
    /// How the kernel keeps it, as `lpm-trie`.
    pub shape: String,
    /// Elements.
    pub used: u64,
    /// Most elements.
    pub max: u64,
    /// What it should hold; none if its content is not planned, as that of flows and counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<u64>,
    /// Entries, those that differ first.
    pub entries: Vec<Entry>,
    /// Entries that the limit left out.
    pub left_out: u64,
}

/// An element.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its key, in words.
    pub key: String,
    /// Its value, in words; empty if it is missing.
    pub value: String,
    /// How it compares to what should be there.
    pub compared: Compared,
    /// What the value should be, if it differs or is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
}

/// How an element compares to what should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// Nobody planned it.
    Unplanned,
    /// It is the same.
    Same,
    /// It should be there and is not.
    Missing,
    /// It is there and should not be.
    Extra,
    /// It has another value.
    Different,
}
