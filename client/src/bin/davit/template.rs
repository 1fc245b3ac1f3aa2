//! `--format`: the part of Go's templates that people use with docker. Fields
//! (`{{.State.Pid}}`), `json`, `len`, `index`, `join`, `upper`, `lower`,
//! `println`, `eq`/`ne`/`not`/`and`/`or`, `if`/`else`/`end`, `range`/`end`,
//! variables of `range`, and pipelines, over JSON values.

use serde_json::Value;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
    /// "table …": a header of the field names goes first.
    pub(crate) table: bool,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        other: Vec<Node>,
    },
    Range {
        key: Option<String>,
        value: Option<String>,
        over: Pipeline,
        body: Vec<Node>,
    },
}

type Pipeline = Vec<Vec<Term>>;

#[derive(Debug, Clone)]
enum Term {
    Path {
        variable: Option<String>,
        fields: Vec<String>,
    },
    Word(String),
    Literal(Value),
    Group(Pipeline),
}

type Scope<'a> = Vec<(String, &'a Value)>;

impl Template {
    /// Parses a template; the error says what is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (table, text) = match text.strip_prefix("table") {
            Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t', '{']) => {
                (true, rest.trim_start())
            }
            _ => (false, text),
        };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut parser = Parser { rest: &text };
        let (nodes, end) = parser.nodes()?;
        match end {
            None => Ok(Self { nodes, table }),
            Some(word) => Err(format!("template: unexpected {{{{{word}}}}}")),
        }
    }

    /// Fills the template with `value`.
    pub(crate) fn render(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.nodes, value, value, &mut Vec::new(), &mut out)?;
        Ok(out)
    }

    /// The header of a table: field names as docker writes them.
    pub(crate) fn header(&self) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(pipeline) => out.push_str(&heading(pipeline)),
                Node::If { .. } | Node::Range { .. } => {}
            }
        }
        out
    }
}

fn heading(pipeline: &Pipeline) -> String {
    for term in pipeline.iter().flatten() {
        if let Term::Path { fields, .. } = term {
            let name = fields.last().map_or("", String::as_str);
            return match name {
                "ID" => "ID".into(),
                "CreatedAt" => "CREATED AT".into(),
                "CreatedSince" => "CREATED".into(),
                "RunningFor" => "CREATED".into(),
                "CPUPerc" => "CPU %".into(),
                "MemPerc" => "MEM %".into(),
                "MemUsage" => "MEM USAGE / LIMIT".into(),
                "NetIO" => "NET I/O".into(),
                "BlockIO" => "BLOCK I/O".into(),
                _ => name.to_uppercase(),
            };
        }
    }
    String::new()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    /// Nodes up to the end of the text or to `else`/`end`, which is given back.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>), String> {
        let mut nodes = Vec::new();
        loop {
            let Some(start) = self.rest.find("{{") else {
                if !self.rest.is_empty() {
                    nodes.push(Node::Text(self.rest.to_owned()));
                }
                self.rest = "";
                return Ok((nodes, None));
            };
            let mut text = &self.rest[..start];
            let body = &self.rest[start + 2..];
            let end = body.find("}}").ok_or("template: unclosed action")?;
            let mut action = &body[..end];
            self.rest = &body[end + 2..];
            if let Some(inner) = action.strip_prefix("- ") {
                action = inner;
                text = text.trim_end();
            }
            if let Some(inner) = action.strip_suffix(" -") {
                action = inner;
                self.rest = self.rest.trim_start();
            }
            if !text.is_empty() {
                nodes.push(Node::Text(text.to_owned()));
            }
            let action = action.trim();
            let word = action.split_whitespace().next().unwrap_or_default();
            match word {
                "end" | "else" => return Ok((nodes, Some(action.to_owned()))),
                "if" => nodes.push(self.if_node(&action[2..])?),
                "range" => nodes.push(self.range_node(&action[5..])?),
                _ if action.starts_with("/*") => {}
                _ => nodes.push(Node::Print(pipeline(action)?)),
            }
        }
    }

    fn if_node(&mut self, condition: &str) -> Result<Node, String> {
        let condition = pipeline(condition)?;
        let (then, end) = self.nodes()?;
        let other = match end.as_deref() {
            Some("end") => Vec::new(),
            Some("else") => self.block()?,
            Some(word) if word.starts_with("else if") => {
                vec![self.if_node(&word["else if".len()..])?]
            }
            _ => return Err("template: {{if}} without {{end}}".into()),
        };
        Ok(Node::If {
            condition,
            then,
            other,
        })
    }

    fn range_node(&mut self, text: &str) -> Result<Node, String> {
        let (names, over) = match text.split_once(":=") {
            Some((names, over)) => (names, over),
            None => ("", text),
        };
        let mut names: Vec<String> = names
            .split(',')
            .map(|name| name.trim().trim_start_matches('$').to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        let value = names.pop();
        let key = names.pop();
        let over = pipeline(over)?;
        let body = self.block()?;
        Ok(Node::Range {
            key,
            value,
            over,
            body,
        })
    }

    fn block(&mut self) -> Result<Vec<Node>, String> {
        match self.nodes()? {
            (nodes, Some(word)) if word == "end" => Ok(nodes),
            _ => Err("template: a block without {{end}}".into()),
        }
    }
}

fn pipeline(text: &str) -> Result<Pipeline, String> {
    let mut tokens = tokens(text)?.into_iter().peekable();
    parse_pipeline(&mut tokens, false)
}

fn parse_pipeline(
    tokens: &mut std::iter::Peekable<std::vec::IntoIter<String>>,
    nested: bool,
) -> Result<Pipeline, String> {
    let mut stages = vec![Vec::new()];
    while let Some(token) = tokens.next() {
        let stage = stages.last_mut().ok_or("template: empty pipeline")?;
        match token.as_str() {
            "|" => stages.push(Vec::new()),
            "(" => stage.push(Term::Group(parse_pipeline(tokens, true)?)),
            ")" if nested => return Ok(stages),
            _ => stage.push(term(&token)?),
        }
    }
    if nested || stages.iter().any(Vec::is_empty) {
        return Err("template: unfinished expression".into());
    }
    Ok(stages)
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            _ if c.is_whitespace() => {
                chars.next();
            }
            '|' | '(' | ')' => {
                tokens.push(c.to_string());
                chars.next();
            }
            '"' | '`' => {
                let mut token = String::from(c);
                chars.next();
                loop {
                    match chars.next() {
                        Some('\\') if c == '"' => {
                            token.push('\\');
                            token.extend(chars.next());
                        }
                        Some(next) if next == c => break,
                        Some(next) => token.push(next),
                        None => return Err("template: unterminated string".into()),
                    }
                }
                tokens.push(token);
            }
            _ => {
                let mut token = String::new();
                while let Some(&next) = chars.peek() {
                    if next.is_whitespace() || "|()".contains(next) {
                        break;
                    }
                    token.push(next);
                    chars.next();
                }
                tokens.push(token);
            }
        }
    }
    Ok(tokens)
}

fn term(token: &str) -> Result<Term, String> {
    if let Some(text) = token.strip_prefix('"') {
        let quoted = format!("\"{text}\"");
        return serde_json::from_str(&quoted)
            .map(Term::Literal)
            .map_err(|_| format!("template: bad string {quoted}"));
    }
    if let Some(text) = token.strip_prefix('`') {
        return Ok(Term::Literal(Value::from(text)));
    }
    if token.starts_with(['.', '$']) {
        let (variable, path) = match token.strip_prefix('$') {
            Some(rest) => {
                let (name, path) = rest.split_once('.').unwrap_or((rest, ""));
                (Some(name.to_owned()), path)
            }
            None => (None, &token[1..]),
        };
        let fields = path
            .split('.')
            .filter(|field| !field.is_empty())
            .map(str::to_owned)
            .collect();
        return Ok(Term::Path { variable, fields });
    }
    if let Ok(number) = token.parse::<i64>() {
        return Ok(Term::Literal(Value::from(number)));
    }
    match token {
        "true" => Ok(Term::Literal(Value::Bool(true))),
        "false" => Ok(Term::Literal(Value::Bool(false))),
        "nil" => Ok(Term::Literal(Value::Null)),
        "json" | "len" | "index" | "join" | "upper" | "lower" | "title" | "println" | "print"
        | "eq" | "ne" | "lt" | "gt" | "not" | "and" | "or" | "split" | "truncate" | "pad"
        | "printf" => Ok(Term::Word(token.to_owned())),
        _ => Err(format!("template: function \"{token}\" not defined")),
    }
}

fn render<'a>(
    nodes: &[Node],
    root: &'a Value,
    dot: &'a Value,
    scope: &mut Scope<'a>,
    out: &mut String,
) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipeline) => out.push_str(&text(&eval(pipeline, root, dot, scope)?)),
            Node::If {
                condition,
                then,
                other,
            } => {
                let branch = if truth(&eval(condition, root, dot, scope)?) {
                    then
                } else {
                    other
                };
                render(branch, root, dot, scope, out)?;
            }
            Node::Range {
                key,
                value,
                over,
                body,
            } => {
                let items = eval(over, root, dot, scope)?;
                for (name, item) in entries(&items) {
                    // Values live as long as this iteration only, so a nested
                    // scope is made for it.
                    let mut inner: Scope<'_> = scope
                        .iter()
                        .map(|(name, value)| (name.clone(), *value))
                        .collect();
                    if let Some(key) = key {
                        inner.push((key.clone(), &name));
                    }
                    if let Some(value) = value {
                        inner.push((value.clone(), item));
                    }
                    render(body, root, item, &mut inner, out)?;
                }
            }
        }
    }
    Ok(())
}

fn entries(items: &Value) -> Vec<(Value, &Value)> {
    match items {
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(index, item)| (Value::from(index), item))
            .collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, item)| (Value::from(key.as_str()), item))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn eval(
    pipeline: &Pipeline,
    root: &Value,
    dot: &Value,
    scope: &Scope<'_>,
) -> Result<Value, String> {
    let mut carried: Option<Value> = None;
    for stage in pipeline {
        let mut values = Vec::new();
        let mut function = None;
        for (position, term) in stage.iter().enumerate() {
            match term {
                Term::Word(word) if position == 0 => function = Some(word.as_str()),
                Term::Word(word) => return Err(format!("template: {word} is not a value")),
                Term::Literal(value) => values.push(value.clone()),
                Term::Group(inner) => values.push(eval(inner, root, dot, scope)?),
                Term::Path { variable, fields } => {
                    values.push(lookup(variable.as_deref(), fields, root, dot, scope)?);
                }
            }
        }
        values.extend(carried.take());
        carried = Some(match function {
            Some(name) => call(name, values)?,
            None if values.len() == 1 => values.remove(0),
            None => return Err("template: a value can't be called".into()),
        });
    }
    carried.ok_or_else(|| "template: empty pipeline".into())
}

fn lookup(
    variable: Option<&str>,
    fields: &[String],
    root: &Value,
    dot: &Value,
    scope: &Scope<'_>,
) -> Result<Value, String> {
    let mut value = match variable {
        None => dot,
        Some("") => root,
        Some(name) => scope
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("template: undefined variable \"${name}\""))?,
    };
    for field in fields {
        value = match value {
            Value::Object(map) => match map.get(field) {
                Some(next) => next,
                None => return Err(format!("template: can't evaluate field {field}")),
            },
            _ => {
                return Err(format!(
                    "template: can't evaluate field {field} in {}",
                    text(value)
                ));
            }
        };
    }
    Ok(value.clone())
}

fn call(name: &str, mut values: Vec<Value>) -> Result<Value, String> {
    let need = |count: usize| {
        if values.len() < count {
            return Err(format!("template: {name} wants {count} argument(s)"));
        }
        Ok(())
    };
    match name {
        "json" => {
            need(1)?;
            serde_json::to_string(&values[0])
                .map(Value::from)
                .map_err(|error| error.to_string())
        }
        "len" => {
            need(1)?;
            Ok(Value::from(match &values[0] {
                Value::String(text) => text.len(),
                other => entries(other).len(),
            }))
        }
        "index" => {
            need(2)?;
            let mut value = values.remove(0);
            for key in values {
                value = match (&value, &key) {
                    (Value::Object(map), Value::String(key)) => map.get(key).cloned(),
                    (Value::Array(list), Value::Number(index)) => index
                        .as_u64()
                        .and_then(|index| usize::try_from(index).ok())
                        .and_then(|index| list.get(index).cloned()),
                    _ => None,
                }
                .unwrap_or(Value::Null);
            }
            Ok(value)
        }
        "join" => {
            need(2)?;
            let parts: Vec<String> = entries(&values[0])
                .into_iter()
                .map(|(_, item)| text(item))
                .collect();
            Ok(Value::from(parts.join(&text(&values[1]))))
        }
        "split" => {
            need(2)?;
            let separator = text(&values[1]);
            Ok(text(&values[0])
                .split(separator.as_str())
                .map(Value::from)
                .collect())
        }
        "truncate" => {
            need(2)?;
            let length = values[1]
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or_default();
            Ok(Value::from(
                text(&values[0]).chars().take(length).collect::<String>(),
            ))
        }
        "upper" | "lower" | "title" => {
            need(1)?;
            let value = text(&values[0]);
            Ok(Value::from(match name {
                "upper" => value.to_uppercase(),
                "lower" => value.to_lowercase(),
                _ => {
                    let mut chars = value.chars();
                    chars.next().map_or_else(String::new, |first| {
                        first.to_uppercase().chain(chars).collect()
                    })
                }
            }))
        }
        "println" => Ok(Value::from(
            values.iter().map(text).collect::<Vec<_>>().join(" ") + "\n",
        )),
        "print" => Ok(Value::from(values.iter().map(text).collect::<String>())),
        "printf" => printf(&values),
        "eq" | "ne" => {
            need(2)?;
            let equal = values[1..].iter().any(|other| *other == values[0]);
            Ok(Value::Bool(equal == (name == "eq")))
        }
        "lt" | "gt" => {
            need(2)?;
            let (left, right) = (values[0].as_f64(), values[1].as_f64());
            Ok(Value::Bool(if name == "lt" {
                left < right
            } else {
                left > right
            }))
        }
        "not" => {
            need(1)?;
            Ok(Value::Bool(!truth(&values[0])))
        }
        "and" => Ok(values
            .iter()
            .find(|value| !truth(value))
            .or(values.last())
            .cloned()
            .unwrap_or(Value::Null)),
        "or" => Ok(values
            .iter()
            .find(|value| truth(value))
            .or(values.last())
            .cloned()
            .unwrap_or(Value::Null)),
        _ => Err(format!("template: function \"{name}\" not defined")),
    }
}

/// `%s`, `%v`, `%d` and `%q`, with the width that people align columns by.
fn printf(values: &[Value]) -> Result<Value, String> {
    let Some(Value::String(format)) = values.first() else {
        return Err("template: printf wants a format".into());
    };
    let mut arguments = values[1..].iter();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut width = String::new();
        let verb = loop {
            match chars.next() {
                Some(digit) if digit.is_ascii_digit() || "-.".contains(digit) => width.push(digit),
                Some(verb) => break verb,
                None => return Err("template: printf: unfinished verb".into()),
            }
        };
        let value = match verb {
            '%' => "%".to_owned(),
            'q' => arguments
                .next()
                .map_or_else(String::new, |value| format!("{:?}", text(value))),
            _ => arguments
                .next()
                .map_or_else(|| format!("%!{verb}(MISSING)"), text),
        };
        let left = width.starts_with('-');
        let width = width
            .trim_start_matches('-')
            .parse::<usize>()
            .unwrap_or_default();
        if left {
            out.push_str(&format!("{value:<width$}"));
        } else {
            out.push_str(&format!("{value:>width$}"));
        }
    }
    Ok(Value::from(out))
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it with %v.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(list) => {
            format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => format!(
            "map[{}]",
            map.iter()
                .map(|(key, value)| format!("{key}:{}", text(value)))
                .collect::<Vec<_>>()
                .join(" ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(template: &str) -> Result<String, String> {
        let value = json!({
            "Id": "abc", "State": {"Running": true, "Pid": 7, "Error": ""},
            "Names": ["a", "b"], "Labels": {"x": "1"},
        });
        Template::parse(template)?.render(&value)
    }

    #[test]
    fn what_people_write_with_docker() {
        assert_eq!(fill("{{.Id}} {{.State.Pid}}").unwrap(), "abc 7");
        let state: Value = serde_json::from_str(&fill("{{json .State}}").unwrap()).unwrap();
        assert_eq!(state, json!({"Running": true, "Pid": 7, "Error": ""}));
        assert_eq!(fill("{{.State.Pid | json}}").unwrap(), "7");
        assert_eq!(fill("{{range .Names}}<{{.}}>{{end}}").unwrap(), "<a><b>");
        assert_eq!(
            fill("{{range $k, $v := .Labels}}{{$k}}={{$v}}{{end}}").unwrap(),
            "x=1"
        );
        assert_eq!(
            fill("{{if .State.Running}}up{{else}}down{{end}}").unwrap(),
            "up"
        );
        assert_eq!(fill("{{if eq .Id \"abc\"}}yes{{end}}").unwrap(), "yes");
        assert_eq!(fill("{{index .Labels \"x\"}}{{len .Names}}").unwrap(), "12");
        assert_eq!(fill("{{join .Names \", \"}}").unwrap(), "a, b");
        assert_eq!(fill("{{range .Names}}{{$.Id}}{{end}}").unwrap(), "abcabc");
        assert_eq!(fill("{{.Names}}").unwrap(), "[a b]");
        assert_eq!(fill("{{printf \"%-5s|\" .Id}}").unwrap(), "abc  |");
        assert_eq!(fill("{{index (index .Names 1) 0}}").unwrap(), "<no value>");
    }

    #[test]
    fn mistakes_are_told() {
        assert!(fill("{{.Nope}}").unwrap_err().contains("Nope"));
        assert!(fill("{{.Id").is_err());
        assert!(fill("{{if .Id}}x").is_err());
        assert!(
            fill("{{frobnicate .Id}}")
                .unwrap_err()
                .contains("frobnicate")
        );
        assert!(fill("{{end}}").is_err());
    }
}
