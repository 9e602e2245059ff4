// SPDX-License-Identifier: MPL-2.0

//! Configuration files of runs in TOML, with base files and overrides.

use std::path::Path;

use crate::{Error, Result};

/// The key that names the base file.
const EXTENDS: &str = "extends";
/// Maximum number of files in a chain of `extends`.
const MAX_FILES: usize = 16;

/// Reads a file. With `extends = "base.toml"` it overrides values of that file, whose path is relative to its own.
pub fn read(path: &Path) -> Result<toml::Table> {
    read_chain(path, MAX_FILES)
}

/// Applies overrides of the form `a.b=value`. The values are in TOML syntax or strings without quotes.
pub fn set_all(table: &mut toml::Table, overrides: &[String]) -> Result<(), String> {
    overrides.iter().try_for_each(|item| set(table, item))
}

/// Reads a file and its chain of base files, at most `files` in total.
fn read_chain(path: &Path, files: usize) -> Result<toml::Table> {
    let refuse = |reason: String| Error::Config { path: path.to_owned(), reason };
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

fn set(table: &mut toml::Table, item: &str) -> Result<(), String> {
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
