//! Servers and clients of Node, whose habits differ from Python's: trailers, `Expect`, event streams, HTTP/2
//! without TLS.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::app::App;
use super::pods::deploy;
use super::session::{Intercept, LAG, command};
use crate::callers::on_the_node;
use crate::lab;
use crate::program::finish;
use crate::team::Team;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/intercept/node.mjs");

/// A folder with Node, the libraries that pods may lack, and the script.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let copy = "set -e; cp \"$(command -v node)\" \"$1/node\"; cp \"$2\" \"$1/node.mjs\"; mkdir \"$1/lib\"; \
                ldd \"$1/node\" | sed -n 's/.*=> \\(\\/[^ ]*\\).*/\\1/p' | \
                grep -vE '/(libc|libm|libdl|libpthread|librt)\\.so' | xargs -I{} cp -L {} \"$1/lib/\"";
    let mut copy_all = Command::new("sh");
    copy_all.args(["-c", copy, "sh"]).arg(path).arg(SCRIPT);
    let done = finish(&mut copy_all, b"");
    assert_eq!(done.code, 0, "{done:?}");
    folder
}

/// Who answered each kind of request.
fn client(folder: &Path, address: &str, header: &str) -> Value {
    let mut client = on_the_node();
    client.arg(folder.join("node")).arg(folder.join("node.mjs"));
    let said = finish(client.args(["client", address, header]), b"").ok();
    println!("{header}: {said}");
    serde_json::from_str(&said).unwrap()
}

#[test]
#[ignore = "needs the lab"]
fn what_node_serves_and_asks_goes_by_its_headers() {
    if lab::leaves_out_long() {
        return;
    }
    let from = folder();
    let team = Team::set_up("node", true);
    let run =
        "LD_LIBRARY_PATH=/from/lib exec /from/node /from/node.mjs server $(hostname) 8080 8081";
    let ports = [("http", 80, 8080), ("http2", 81, 8081)];
    deploy(&team, "node", run, from.path().to_str().unwrap(), &ports);
    let address = team.address("node");
    let mut server = Command::new("node");
    server.args([SCRIPT, "server", "laptop-of-ann"]);
    let ann = App::start("ann", server);
    let one = Intercept::live(&team, &ann, &["node:http", "--header", "x-user: ann"]);
    let two = ann.greeter.to_string();
    let two = [
        "node:http2",
        "--protocol",
        "http",
        "--header",
        "x-user: ann",
        "--to",
        &two,
    ];
    let two = Intercept::attempt(&mut command(&team, "ann", &two));
    let two = two.unwrap_or_else(|refused| panic!("{refused:?}"));
    std::thread::sleep(LAG);

    let all_by = |who: &Value, is: &dyn Fn(&str) -> bool| {
        let kinds = who.as_object().unwrap();
        assert_eq!(kinds.len(), 9, "{who}");
        for (kind, names) in kinds {
            let names = names.as_array().unwrap();
            assert!(!names.is_empty(), "{kind}");
            assert!(
                names.iter().all(|name| is(name.as_str().unwrap())),
                "{kind}: {names:?}"
            );
        }
    };
    all_by(&client(from.path(), &address, "x-user: ann"), &|name| {
        name == ann.name
    });
    all_by(&client(from.path(), &address, "x-user: bob"), &|name| {
        name.starts_with("node-")
    });
    two.end();
    one.end();
}
