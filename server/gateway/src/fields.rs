//! Reads docker's JSON objects the way Go's decoder does: unknown fields are
//! ignored, names match without case, null is the zero value, and a wrong type
//! is refused with the field's full path.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::failure::{Failure, Result};

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// One JSON object and the path that leads to it.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Go's name of the outermost struct, for messages.
    root: &'static str,
    path: String,
}

impl<'a> Fields<'a> {
    /// Takes the top of a body; null is an empty object.
    pub(crate) fn root(value: &'a Value, root: &'static str) -> Result<Self> {
        match value {
            Value::Object(object) => Ok(Self {
                object,
                root,
                path: String::new(),
            }),
            Value::Null => Ok(Self {
                object: &EMPTY,
                root,
                path: String::new(),
            }),
            other => Err(Failure::bad_request(format!(
                "invalid JSON: json: cannot unmarshal {} into Go value of type {root}",
                kind(other)
            ))),
        }
    }

    /// The field as it stands; `None` when it is missing or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        let exact = self.object.get(key);
        exact
            .or_else(|| {
                let mut all = self.object.iter();
                all.find(|(name, _)| name.eq_ignore_ascii_case(key))
                    .map(|(_, value)| value)
            })
            .filter(|value| !value.is_null())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn string(&self, key: &str) -> Result<String> {
        match self.get(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => self.wrong(key, other, "string"),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        self.opt_flag(key).map(Option::unwrap_or_default)
    }

    pub(crate) fn opt_flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => self.wrong(key, other, "bool"),
        }
    }

    pub(crate) fn int(&self, key: &str) -> Result<i64> {
        self.opt_int(key).map(Option::unwrap_or_default)
    }

    pub(crate) fn opt_int(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => self.wrong(key, value, "int64"),
            },
        }
    }

    /// An integer that has to fit a smaller type.
    pub(crate) fn small<T: TryFrom<i64>>(&self, key: &str, go_type: &str) -> Result<T> {
        let number = self.int(key)?;
        T::try_from(number).or_else(|_| self.wrong(key, &Value::from(number), go_type))
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Vec<String>> {
        self.opt_strings(key).map(Option::unwrap_or_default)
    }

    pub(crate) fn opt_strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => {
                let texts = items.iter().map(|item| match item {
                    Value::String(text) => Ok(text.clone()),
                    Value::Null => Ok(String::new()),
                    other => self.wrong(key, other, "string"),
                });
                texts.collect::<Result<_>>().map(Some)
            }
            Some(other) => self.wrong(key, other, "[]string"),
        }
    }

    /// A list of words that old clients send as one string.
    pub(crate) fn words(&self, key: &str) -> Result<Option<Vec<String>>> {
        match self.get(key) {
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            _ => self.opt_strings(key),
        }
    }

    pub(crate) fn string_map(&self, key: &str) -> Result<HashMap<String, String>> {
        let mut map = HashMap::new();
        for (name, value) in self.map(key, "map[string]string")? {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => return self.wrong(&format!("{key}.{name}"), other, "string"),
            };
            map.insert(name.clone(), text);
        }
        Ok(map)
    }

    /// The names of a set that is written as `{"name": {}}`.
    pub(crate) fn set(&self, key: &str) -> Result<Vec<String>> {
        Ok(self
            .map(key, "map[string]struct {}")?
            .keys()
            .cloned()
            .collect())
    }

    /// An object inside; empty when it is missing.
    pub(crate) fn object(&self, key: &str) -> Result<Fields<'a>> {
        let object = match self.get(key) {
            None => &EMPTY,
            Some(Value::Object(object)) => object,
            Some(other) => return self.wrong(key, other, key),
        };
        Ok(Fields {
            object,
            root: self.root,
            path: self.join(key),
        })
    }

    /// A list of objects.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Fields<'a>>> {
        let items = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => return self.wrong(key, other, &format!("[]{key}")),
        };
        items
            .iter()
            .map(|item| match item {
                Value::Object(object) => Ok(Fields {
                    object,
                    root: self.root,
                    path: self.join(key),
                }),
                Value::Null => Ok(Fields {
                    object: &EMPTY,
                    root: self.root,
                    path: self.join(key),
                }),
                other => self.wrong(key, other, key),
            })
            .collect()
    }

    /// An object of objects.
    pub(crate) fn object_map(&self, key: &str) -> Result<BTreeMap<String, Fields<'a>>> {
        let inner = self.object(key)?;
        inner
            .object
            .keys()
            .map(|name| Ok((name.clone(), inner.object(name)?)))
            .collect()
    }

    fn map(&self, key: &str, go_type: &str) -> Result<&'a Map<String, Value>> {
        match self.get(key) {
            None => Ok(&EMPTY),
            Some(Value::Object(object)) => Ok(object),
            Some(other) => self.wrong(key, other, go_type),
        }
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn wrong<T>(&self, key: &str, value: &Value, go_type: &str) -> Result<T> {
        Err(Failure::bad_request(format!(
            "invalid JSON: json: cannot unmarshal {} into Go struct field {}.{} of type {go_type}",
            kind(value),
            self.root,
            self.join(key)
        )))
    }
}

/// Go's word for the kind of a JSON value; numbers come with their digits.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(number) if number.is_i64() => "number".into(),
        Value::Number(number) => format!("number {number}"),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_as_go_does() {
        let value = json!({
            "image": "busybox", "Tty": null, "Cmd": "sh", "Env": ["A=1", null],
            "Host": {"Memory": 5, "Ports": {"80/tcp": {}}}
        });
        let fields = Fields::root(&value, "Config").unwrap();
        assert_eq!(fields.string("Image").unwrap(), "busybox");
        assert!(!fields.flag("Tty").unwrap());
        assert_eq!(fields.words("Cmd").unwrap(), Some(vec!["sh".to_owned()]));
        assert_eq!(fields.strings("Env").unwrap(), ["A=1", ""]);
        let host = fields.object("Host").unwrap();
        assert_eq!(host.int("Memory").unwrap(), 5);
        assert_eq!(host.set("Ports").unwrap(), ["80/tcp"]);
        assert_eq!(fields.object("Missing").unwrap().int("x").unwrap(), 0);
    }

    #[test]
    fn wrong_types_are_named_with_their_path() {
        let value = json!({"HostConfig": {"Memory": "much"}, "Tty": 1, "Big": 1.5});
        let fields = Fields::root(&value, "ContainerConfigWrapper").unwrap();
        assert_eq!(
            fields
                .object("HostConfig")
                .unwrap()
                .int("Memory")
                .unwrap_err()
                .message(),
            "invalid JSON: json: cannot unmarshal string into Go struct field \
             ContainerConfigWrapper.HostConfig.Memory of type int64"
        );
        assert_eq!(
            fields.flag("Tty").unwrap_err().message(),
            "invalid JSON: json: cannot unmarshal number into Go struct field \
             ContainerConfigWrapper.Tty of type bool"
        );
        assert!(
            fields
                .int("Big")
                .unwrap_err()
                .message()
                .contains("number 1.5")
        );
        assert!(Fields::root(&json!([1]), "X").is_err());
    }
}
