//! The API reference, made from the compiled .proto files and their comments.

use std::{collections::HashMap, fmt::Write};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

type Comments = HashMap<Vec<i32>, String>;

/// docs/api.md.
pub fn api_reference() -> String {
    let set = FileDescriptorSet::decode(davit_proto::DESCRIPTORS).expect("our own descriptors");
    let mut out = String::from(
        "# davit.v1\n\n<!-- Made by `make doc` from the comments in proto/davit/v1; change those. -->\n\n\
         The gRPC API of davitd, on its Unix socket (`/run/davit/davit.sock`). The namespace of a call\n\
         is its metadata key `davit-namespace`; without it the namespace is `default`. Errors carry the\n\
         exact kind in the trailer `davit-kind`.\n",
    );
    let files: Vec<_> = set
        .file
        .iter()
        .filter(|file| file.package() == "davit.v1")
        .collect();
    for file in &files {
        let comments = comments(file);
        for (index, service) in (0..).zip(&file.service) {
            write_service(&mut out, &comments, index, service);
        }
    }
    out.push_str("\n# Messages\n");
    for file in files {
        let comments = comments(file);
        for (index, message) in (0..).zip(&file.message_type) {
            write_message(&mut out, &comments, &[4, index], message, "");
        }
        for (index, kind) in (0..).zip(&file.enum_type) {
            write_enum(&mut out, &comments, &[5, index], kind, "");
        }
    }
    out
}

fn comments(file: &FileDescriptorProto) -> Comments {
    let info = file.source_code_info.as_ref();
    info.map(|info| {
        info.location
            .iter()
            .filter_map(|location| {
                let text = location.leading_comments.as_deref()?;
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                Some((location.path.clone(), lines.join(" ").trim().to_owned()))
            })
            .collect()
    })
    .unwrap_or_default()
}

fn said(comments: &Comments, path: &[i32]) -> String {
    comments.get(path).cloned().unwrap_or_default()
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a string can be written to");
}

fn write_service(
    out: &mut String,
    comments: &Comments,
    index: i32,
    service: &ServiceDescriptorProto,
) {
    line(
        out,
        &format!(
            "\n## {}\n\n{}\n",
            service.name(),
            said(comments, &[6, index])
        ),
    );
    line(out, "| call | takes | gives | |\n| --- | --- | --- | --- |");
    for (call, method) in (0..).zip(&service.method) {
        let side = |streaming: bool, name: &str| {
            let name = name.rsplit('.').next().unwrap_or(name);
            let link = format!("[{name}](#{})", name.to_lowercase());
            if streaming {
                format!("stream {link}")
            } else {
                link
            }
        };
        line(
            out,
            &format!(
                "| `{}` | {} | {} | {} |",
                method.name(),
                side(method.client_streaming(), method.input_type()),
                side(method.server_streaming(), method.output_type()),
                said(comments, &[6, index, 2, call]),
            ),
        );
    }
}

fn write_message(
    out: &mut String,
    comments: &Comments,
    path: &[i32],
    message: &DescriptorProto,
    outer: &str,
) {
    // Map entries are an encoding, not a message that people use.
    if message
        .options
        .as_ref()
        .is_some_and(prost_types::MessageOptions::map_entry)
    {
        return;
    }
    let name = format!("{outer}{}", message.name());
    line(out, &format!("\n### {name}\n\n{}", said(comments, path)));
    if !message.field.is_empty() {
        line(out, "\n| field | type | |\n| --- | --- | --- |");
    }
    for (index, field) in (0..).zip(&message.field) {
        let path = [path, &[2, index]].concat();
        let text = said(comments, &path);
        line(
            out,
            &format!(
                "| {} `{}` | {} | {text} |",
                field.number(),
                field.name(),
                kind(field, message)
            ),
        );
    }
    let inner = format!("{name}.");
    for (index, nested) in (0..).zip(&message.nested_type) {
        write_message(out, comments, &[path, &[3, index]].concat(), nested, &inner);
    }
    for (index, nested) in (0..).zip(&message.enum_type) {
        write_enum(out, comments, &[path, &[4, index]].concat(), nested, &inner);
    }
}

fn write_enum(
    out: &mut String,
    comments: &Comments,
    path: &[i32],
    kind: &EnumDescriptorProto,
    outer: &str,
) {
    line(
        out,
        &format!("\n### {outer}{}\n\n{}", kind.name(), said(comments, path)),
    );
    line(out, "\n| value | |\n| --- | --- |");
    for (index, value) in (0..).zip(&kind.value) {
        let text = said(comments, &[path, &[2, index]].concat());
        line(
            out,
            &format!("| {} `{}` | {text} |", value.number(), value.name()),
        );
    }
}

fn kind(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let name = field.type_name().rsplit('.').next().unwrap_or_default();
    if let Some(entry) = message.nested_type.iter().find(|nested| {
        nested.name() == name
            && nested
                .options
                .as_ref()
                .is_some_and(prost_types::MessageOptions::map_entry)
    }) {
        let sides: Vec<String> = entry.field.iter().map(|side| kind(side, entry)).collect();
        return format!("map of {}", sides.join(" to "));
    }
    let base = match field.r#type() {
        Type::Message | Type::Enum => name.to_owned(),
        other => other
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    if field.label() == Label::Repeated {
        format!("list of {base}")
    } else {
        base
    }
}
