//! Words of an instruction: quotes, backslashes and variables as in a
//! Dockerfile (a small part of a shell's rules).

use std::collections::HashMap;

use davit_store::{Error, Result};

/// Variables by name.
pub(super) type Lookup = HashMap<String, String>;

/// Splits `text` into words.
pub(super) fn words(text: &str, variables: &Lookup) -> Result<Vec<String>> {
    Reader::new(text, variables).words()
}

/// "a=b c=d", or of old "a the whole rest".
pub(super) fn pairs(text: &str, variables: &Lookup) -> Result<Vec<(String, String)>> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') && !first.starts_with(['"', '\'']) {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{text} must have two arguments")))?;
        let mut reader = Reader::new(value.trim(), variables);
        reader.blanks = false;
        let value = reader.words()?.pop().unwrap_or_default();
        return Ok(vec![(key.to_owned(), value)]);
    }
    words(text, variables)?
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Error::invalid("names can not be blank")),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::invalid(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    variables: &'a Lookup,
    /// Whether blanks end a word.
    blanks: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, variables: &'a Lookup) -> Self {
        Self {
            rest: text.chars().peekable(),
            variables,
            blanks: true,
        }
    }

    fn words(&mut self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        while let Some(c) = self.rest.next() {
            if c.is_whitespace() && self.blanks {
                words.extend(word.take());
                continue;
            }
            let word = word.get_or_insert_default();
            match c {
                '\'' => self.single(word)?,
                '"' => self.double(word)?,
                '\\' => word.extend(self.rest.next()),
                '$' => self.variable(word)?,
                c => word.push(c),
            }
        }
        words.extend(word);
        Ok(words)
    }

    fn single(&mut self, word: &mut String) -> Result<()> {
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some(c) => word.push(c),
                None => return Err(unfinished("single quotes")),
            }
        }
    }

    fn double(&mut self, word: &mut String) -> Result<()> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(word)?,
                Some('\\') => match self.rest.next() {
                    Some(c @ ('"' | '$' | '\\')) => word.push(c),
                    Some(c) => word.extend(['\\', c]),
                    None => return Err(unfinished("double quotes")),
                },
                Some(c) => word.push(c),
                None => return Err(unfinished("double quotes")),
            }
        }
    }

    /// `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}`.
    fn variable(&mut self, word: &mut String) -> Result<()> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            match name.as_str() {
                "" => word.push('$'),
                name => word.push_str(self.value(name)),
            }
            return Ok(());
        }
        let name = self.name();
        let mut modifier = String::new();
        loop {
            match self.rest.next() {
                Some('}') => break,
                Some(c) => modifier.push(c),
                None => return Err(unfinished("${")),
            }
        }
        let value = self.value(&name).to_owned();
        if modifier.is_empty() && !name.is_empty() {
            word.push_str(&value);
        } else if let Some(default) = modifier.strip_prefix(":-") {
            word.push_str(if value.is_empty() { default } else { &value });
        } else if let Some(other) = modifier.strip_prefix(":+") {
            word.push_str(if value.is_empty() { "" } else { other });
        } else {
            return Err(Error::invalid(format!(
                "unsupported modifier in ${{{name}{modifier}}}"
            )));
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .rest
            .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
        }
        name
    }

    fn value(&self, name: &str) -> &'a str {
        self.variables.get(name).map_or("", String::as_str)
    }
}

fn unfinished(what: &str) -> Error {
    Error::invalid(format!(
        "unexpected end of statement while looking for the end of {what}"
    ))
}
