//! A volume plugin for the tests: docker's protocol over a Unix socket, with
//! directories as volumes.
//!
//! `volume-plugin <socket> <directory>`. Below the directory: `data/<name>` is a
//! volume, `mounts/<name>@<id>` a mount of it, `calls` what was asked; while a
//! file `hang` is there nothing is answered.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

fn main() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(socket), Some(dir)) = (args.next(), args.next()) else {
        return Err(io::Error::other(
            "usage: volume-plugin <socket> <directory>",
        ));
    };
    for name in ["data", "mounts"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let listener = UnixListener::bind(socket)?;
    for stream in listener.incoming() {
        let (stream, dir) = (stream?, dir.clone());
        std::thread::spawn(move || {
            if let Err(error) = serve(stream, &dir) {
                eprintln!("volume-plugin: {error}");
            }
        });
    }
    Ok(())
}

fn serve(stream: UnixStream, dir: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(());
    }
    let method = line
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .trim_start_matches('/')
        .to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let name = body["Name"].as_str().unwrap_or_default();
    let id = body["ID"].as_str().unwrap_or_default();
    let mut calls = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("calls"))?;
    writeln!(calls, "{method} {name}")?;
    while dir.join("hang").exists() {
        // The caller gives up; so do we, sooner or later.
        std::thread::sleep(Duration::from_millis(50));
    }
    let (status, answer) = match answer(&method, name, id, dir) {
        Ok(answer) => ("200 OK", answer),
        Err(error) => (
            "500 Internal Server Error",
            json!({ "Err": error.to_string() }),
        ),
    };
    let answer = answer.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )
}

fn answer(method: &str, name: &str, id: &str, dir: &Path) -> io::Result<Value> {
    let data = dir.join("data").join(name);
    let mount = dir.join("mounts").join(format!("{name}@{id}"));
    let known = |path: &Path| match path.is_dir() {
        true => Ok(()),
        false => Err(io::Error::other(format!("no volume {name} here"))),
    };
    let volume = |name: &str| json!({"Name": name, "Mountpoint": dir.join("data").join(name), "Status": {"kept": "in a test"}});
    Ok(match method {
        "Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
        "VolumeDriver.Capabilities" => json!({"Capabilities": {"Scope": "global"}}),
        "VolumeDriver.Create" => {
            if name == "refused" {
                return Err(io::Error::other("this one I do not keep"));
            }
            fs::create_dir_all(&data)?;
            json!({})
        }
        "VolumeDriver.Get" => {
            known(&data)?;
            json!({"Volume": volume(name)})
        }
        "VolumeDriver.List" => {
            let names = fs::read_dir(dir.join("data"))?
                .flatten()
                .map(|entry| entry.file_name());
            json!({"Volumes": names.map(|name| volume(&name.to_string_lossy())).collect::<Value>()})
        }
        "VolumeDriver.Mount" => {
            known(&data)?;
            fs::write(mount, "")?;
            json!({"Mountpoint": data})
        }
        "VolumeDriver.Path" => json!({"Mountpoint": data}),
        "VolumeDriver.Unmount" => {
            fs::remove_file(mount)?;
            json!({})
        }
        "VolumeDriver.Remove" => {
            known(&data)?;
            fs::remove_dir_all(data)?;
            json!({})
        }
        _ => {
            return Err(io::Error::other(format!(
                "{method} is not of this protocol"
            )));
        }
    })
}
