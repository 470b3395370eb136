//! The rules, a file per kind.

mod plain;
mod hash;
mod iban;
mod fakes;
mod digits;
mod noise;
mod calendar;
mod shift;
mod json_path;
mod json_text;
mod json;
mod array;

pub(crate) use array::EachElement;
pub(crate) use calendar::{is_date, is_timestamp, moment};
pub(crate) use digits::{Digits, DigitsOf};
pub(crate) use fakes::{Fake, least_length};
pub(crate) use hash::{HashInteger, HashNumeric, HashText, HashUuid, TEXT_DIGITS, integer};
pub(crate) use json::{JsonLeaf, JsonRules};
pub(crate) use json_path::JsonPath;
pub(crate) use noise::{FloatNoise, NumberNoise};
pub(crate) use plain::{ConstantRule, Null, Replace, Truncate};
pub(crate) use shift::Shift;
