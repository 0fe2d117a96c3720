//! The configuration file: TOML in, [`Settings`] out, or one line that says where and what is wrong.

use super::schema::{KEYS, Key, Kind, device_table, heading, names};
use super::{ConfigError, Settings};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong, and the bytes of the text that it is about.
struct Wrong {
    span: Range<usize>,
    message: String,
}

/// Reads a file. Relative paths in it start at its own directory.
///
/// # Errors
/// When the file cannot be read, is no TOML, or has an unknown key or a bad value.
pub(super) fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let mut settings = parse(&text).map_err(|wrong| {
        let (line, column) = position(&text, wrong.span.start);
        ConfigError::File { path: path.to_owned(), line, column, message: wrong.message }
    })?;
    if let Some(directory) = path.parent() {
        settings.rebase(directory);
    }
    Ok(settings)
}

fn parse(text: &str) -> Result<Settings, Wrong> {
    let root = DeTable::parse(text).map_err(|error| Wrong {
        span: error.span().unwrap_or_default(),
        message: error.message().split_whitespace().collect::<Vec<_>>().join(" "),
    })?;
    let mut settings = Settings::default();
    walk("", root.get_ref(), &mut settings)?;
    Ok(settings)
}

/// Takes the keys of one table, in the order of the text, so that the first mistake is the one reported.
fn walk(table: &'static str, entries: &DeTable<'_>, settings: &mut Settings) -> Result<(), Wrong> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let found = name.get_ref().as_ref();
        if let Some(key) = KEYS.iter().find(|key| key.table == table && key.name == found) {
            assign(key, value, settings)?;
            continue;
        }
        let inner = KEYS.iter().map(|key| key.table).find(|inner| table.is_empty() && *inner == found);
        let inner = inner.ok_or_else(|| Wrong { span: name.span(), message: unknown(found, table) })?;
        for entries in tables(inner, value)? {
            if let Some(device) = device_table(inner) {
                (device.begin)(&mut settings.devices);
            }
            walk(inner, entries, settings)?;
        }
    }
    Ok(())
}

/// The tables that `value` is: of a list there may be several.
fn tables<'a, 'b>(table: &str, value: &'a Spanned<DeValue<'b>>) -> Result<Vec<&'a DeTable<'b>>, Wrong> {
    let is_list = device_table(table).is_some_and(|device| device.is_list);
    let entries = match value.get_ref() {
        DeValue::Table(entries) if !is_list => Some(vec![entries]),
        DeValue::Array(values) if is_list => values.iter().map(|value| value.get_ref().as_table()).collect(),
        _ => None,
    };
    entries.ok_or_else(|| {
        let what = if is_list { "a list of tables" } else { "a table" };
        let message = format!("{table} is {what}; write {} with keys: {}", heading(table), list(table));
        Wrong { span: value.span(), message }
    })
}

fn assign(key: &Key, value: &Spanned<DeValue<'_>>, settings: &mut Settings) -> Result<(), Wrong> {
    let text = match (key.kind, value.get_ref()) {
        (Kind::Text | Kind::Size | Kind::WordOrInteger, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Integer | Kind::Size | Kind::WordOrInteger, DeValue::Integer(number)) => {
            u64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        (Kind::Boolean, DeValue::Boolean(value)) => Some(value.to_string()),
        _ => None,
    };
    let wrong = |message| Wrong { span: value.span(), message };
    match text {
        Some(text) => (key.set)(settings, &text).map_err(|message| wrong(format!("{}: {message}", key.name))),
        None => Err(wrong(format!("{} has to be {}", key.name, key.kind))),
    }
}

fn list(table: &str) -> String {
    names(table).join(", ")
}

/// The message for a key that nobody knows: which there are, and which one may have been meant.
fn unknown(found: &str, table: &str) -> String {
    let place = if table.is_empty() { "the top level".to_owned() } else { heading(table) };
    // The right name in the wrong table comes first, then the nearest name in this one.
    let elsewhere = KEYS.iter().find(|key| key.name == found).map(|key| match key.table {
        "" => format!("{found} at the top level"),
        table => format!("{found} in {}", heading(table)),
    });
    let near = || {
        let nearest = names(table).into_iter().min_by_key(|name| distance(found, name))?;
        (distance(found, nearest) <= 2).then(|| format!("\"{nearest}\""))
    };
    let hint = elsewhere.or_else(near).map_or_else(String::new, |hint| format!(" (did you mean {hint}?)"));
    format!("unknown key \"{}\" in {place}{hint}; keys: {}", found.escape_debug(), list(table))
}

/// Levenshtein's distance: how many letters have to be changed, added or taken away.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// Line and column of a byte, both from 1; columns count characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
