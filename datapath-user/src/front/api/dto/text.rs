//! Domain values as text: written by `Display`, read by `FromStr`, so that no decoded request skips a check.
//!
//! For `#[serde(with = "text")]`; `text::maybe` and `text::list` for options and lists.

use std::{fmt::Display, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::model::{invalid::Invalid, prefix::Prefix};

/// Writes a value as its text.
pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads a value from its text.
pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(Error::custom)
}

/// An option; absent and `null` are the same.
pub mod maybe {
    use super::{Deserialize, Deserializer, Display, Error, FromStr, Serializer};

    /// Writes the value if there is one.
    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the value if there is one.
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(Error::custom)).transpose()
    }
}

/// A list.
pub mod list {
    use serde::ser::SerializeSeq;

    use super::{Deserialize, Deserializer, Display, Error, FromStr, Serializer};

    /// Writes the values.
    pub fn serialize<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(values.len()))?;
        for value in values {
            list.serialize_element(&value.to_string())?;
        }
        list.end()
    }

    /// Reads the values.
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(Error::custom)).collect()
    }
}

/// Reads an address; one of IPv4 that is written as IPv6 is refused, as everywhere.
pub fn address(text: &str) -> Result<IpAddr, Invalid> {
    let help = "write an IPv4 or IPv6 address, without a length, as 10.1.0.7 or fd00:1::7";
    let addr = text.parse().map_err(|_| Invalid::new("address", text, help))?;
    Ok(Prefix::host(addr)?.first())
}
