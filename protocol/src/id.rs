//! Ids: twelve bytes, written as 24 hexadecimal digits.
//!
//! Why this form: Oakestra's clients expect the ids of its database, which have it. Ids are
//! given by whoever creates the thing (randomness comes from a shell) and never reused.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Bytes of an id.
pub const ID_BYTES: usize = 12;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 24 hexadecimal digits.
    #[error("an id has 24 hexadecimal digits, got {0:?}")]
    Form(String),
    /// No `.` between service id and number, or the number is none.
    #[error("an instance is written SERVICE.NUMBER, got {0:?}")]
    Instance(String),
}

/// How much of a bad text is repeated in an error.
const QUOTE_CHARS_MAX: usize = 64;

fn quote(text: &str) -> String {
    text.chars().take(QUOTE_CHARS_MAX).collect()
}

fn parse_hex(text: &str) -> Result<[u8; ID_BYTES], IdError> {
    let digits = text.as_bytes();
    if digits.len() != ID_BYTES * 2 {
        return Err(IdError::Form(quote(text)));
    }
    let mut bytes = [0; ID_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            b'A'..=b'F' => Ok(digit - b'A' + 10),
            _ => Err(IdError::Form(quote(text))),
        };
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; ID_BYTES]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    <[u8; ID_BYTES]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id!(
    /// An application.
    ApplicationId
);
id!(
    /// A service (Oakestra: microservice, job).
    ServiceId
);
id!(
    /// A child of some tier: a node or a cluster. One type, since a tier treats both alike.
    ChildId
);

/// One running copy of a service, numbered from 0 within it; numbers are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// Of which service.
    pub service: ServiceId,
    /// Which copy.
    pub number: u32,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.number)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (service, number) =
            text.split_once('.').ok_or_else(|| IdError::Instance(quote(text)))?;
        let canonical = number == "0" || !number.starts_with(['0', '+']);
        let number =
            number.parse().ok().filter(|_| canonical).ok_or(IdError::Instance(quote(text)))?;
        Ok(Self { service: service.parse()?, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write() {
        let text = "6b02c146095d85ec50ef2ebc";
        let id: ServiceId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        let instance: InstanceId = format!("{text}.17").parse().unwrap();
        assert_eq!(instance, InstanceId { service: id, number: 17 });
        assert_eq!(instance.to_string(), format!("{text}.17"));
    }

    #[test]
    fn bad_ids_say_what_is_wrong() {
        let long = "f".repeat(1000);
        for bad in ["", "6b", "6b02c146095d85ec50ef2ebg", "6b02c146095d85ec50ef2ebcc", "ä", &long]
        {
            let error = bad.parse::<ServiceId>().unwrap_err();
            assert!(error.to_string().contains("24 hexadecimal"), "{error}");
            assert!(error.to_string().len() < 200);
        }
        for bad in ["6b02c146095d85ec50ef2ebc", "6b02c146095d85ec50ef2ebc.", "x.1"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
        for number in ["-1", "+1", "01", "4294967296", "1 "] {
            assert!(format!("6b02c146095d85ec50ef2ebc.{number}").parse::<InstanceId>().is_err());
        }
    }

    #[test]
    fn json_shows_hexadecimal_and_postcard_twelve_bytes() {
        let id = ServiceId([0xab; 12]);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        assert_eq!(postcard::to_stdvec(&id).unwrap(), [0xab; 12]);
    }
}
