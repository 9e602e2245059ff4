// SPDX-License-Identifier: MPL-2.0

//! Configuration files of runs in TOML, with base files and overrides.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::check::Checked;
use crate::{Error, Result};

/// The key that names the base file.
const EXTENDS: &str = "extends";
/// Maximum number of files in a chain of `extends`.
const MAX_FILES: usize = 16;

/// Reads a configuration and applies overrides of the form `a.b=value`, whose values are in TOML syntax or strings without
/// quotes. With `extends = "base.toml"`, a file overrides values of that file, whose path is relative to its own. `prepare` gets
/// the table before it is converted, `check` the result.
///
/// # Errors
/// If a file cannot be read, keys are unknown or missing, or a check fails; the message names the file.
pub fn open<Config: DeserializeOwned>(
    path: &Path,
    overrides: &[String],
    prepare: impl FnOnce(&mut toml::Table) -> Checked,
    check: impl FnOnce(&Config) -> Checked,
) -> Result<Config> {
    let refuse = |reason: String| Error::Config(path.to_owned(), reason);
    let mut table = read_chain(path, MAX_FILES)?;
    overrides.iter().try_for_each(|item| set(&mut table, item)).map_err(refuse)?;
    prepare(&mut table).map_err(refuse)?;
    let config = table.try_into().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
    check(&config).map_err(refuse)?;
    Ok(config)
}

/// Returns the error of a configuration that has no form in TOML, which does not occur in practice.
pub fn no_toml(error: toml::ser::Error) -> Error {
    Error::Config("(effective configuration)".into(), error.to_string())
}

/// Reads a file and its chain of base files, at most `files` in total.
fn read_chain(path: &Path, files: usize) -> Result<toml::Table> {
    let refuse = |reason: String| Error::Config(path.to_owned(), reason);
    let text = std::fs::read_to_string(path).map_err(|source| Error::read(path, source))?;
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
    let Some(base) = table.remove(EXTENDS) else { return Ok(table) };
    let Some(base) = base.as_str() else {
        return Err(refuse(format!("{EXTENDS}: must be the path of a file")));
    };
    if files <= 1 {
        return Err(refuse(format!(
            "{EXTENDS}: chain of more than {MAX_FILES} files, or a file that extends itself"
        )));
    }
    let mut whole = read_chain(&path.with_file_name(base), files - 1)?;
    extend(&mut whole, table);
    Ok(whole)
}

/// Merges `changes` into `table`, recursively.
fn extend(table: &mut toml::Table, changes: toml::Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(changes)) => extend(inner, changes),
            (_, change) => drop(table.insert(key, change)),
        }
    }
}

fn set(table: &mut toml::Table, item: &str) -> Checked {
    let (key, value) =
        item.split_once('=').ok_or_else(|| format!("{item:?} is not of the form key=value"))?;
    let value = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path.pop().unwrap_or_default();
    let mut inner = table;
    for part in path {
        inner = inner
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{part:?} in {key:?} is not a table"))?;
    }
    inner.insert(last.to_owned(), value);
    Ok(())
}
