use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use tempfile::TempDir;

use super::*;

const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";

/// A plugin that is a shell script; never executed itself, which would fail while another test
/// forks with the file still open for writing.
fn plugin(dir: &TempDir, script: &str) -> ExecConfig {
    let path = dir.path().join("plugin");
    fs::write(&path, script).unwrap();
    ExecConfig {
        api_version: Some(V1.to_owned()),
        command: Some("/bin/sh".to_owned()),
        args: Some(vec![path.to_str().unwrap().to_owned()]),
        interactive_mode: Some(ExecInteractiveMode::Never),
        ..ExecConfig::default()
    }
}

async fn within(config: &ExecConfig, limit: Duration) -> Result<Credential, ExecError> {
    run_within(config, false, |_| limit).await
}

async fn run_it(script: &str) -> Result<Credential, ExecError> {
    let dir = tempfile::tempdir().unwrap();
    within(&plugin(&dir, script), PLUGIN_TIMEOUT).await
}

#[tokio::test]
async fn tokens_and_certificates_come_with_their_end() {
    let token = run_it(
        r#"echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"t","expirationTimestamp":"2030-01-02T03:04:05Z"}}'"#,
    );
    let token = token.await.unwrap();
    assert_eq!(token.token.as_deref(), Some("t"));
    let since = token
        .expires
        .unwrap()
        .duration_since(SystemTime::UNIX_EPOCH);
    assert_eq!(since.unwrap().as_secs(), 1_893_553_445);

    let yaml = "printf 'status:\\n  clientCertificateData: cert\\n  clientKeyData: key\\n'";
    let identity = run_it(yaml).await.unwrap().identity;
    assert_eq!(identity, Some(("cert".into(), "key".into())));
}

#[tokio::test]
async fn the_plugin_is_told_what_kubectl_would_tell() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = plugin(
        &dir,
        r#"printf '%s|%s|%s' "$KUBERNETES_EXEC_INFO" "$EXTRA" "$1" > "$(dirname "$0")/told"; echo '{"status":{"token":"t"}}'"#,
    );
    config.args.get_or_insert_default().push("login".into());
    config.env = Some(vec![HashMap::from([
        ("name".to_owned(), "EXTRA".to_owned()),
        ("value".to_owned(), "more".to_owned()),
    ])]);
    config.provide_cluster_info = true;
    config.cluster = Some(ExecAuthCluster {
        server: Some("https://x:1".into()),
        certificate_authority_data: Some(b"ca".to_vec()),
        ..ExecAuthCluster::default()
    });
    within(&config, PLUGIN_TIMEOUT).await.unwrap();
    let told = fs::read_to_string(dir.path().join("told")).unwrap();
    let (info, rest) = told.split_once('|').unwrap();
    assert_eq!(rest, "more|login");
    let info: serde_json::Value = serde_json::from_str(info).unwrap();
    assert_eq!(info["kind"], "ExecCredential");
    assert_eq!(info["apiVersion"], V1);
    assert_eq!(info["spec"]["interactive"], false);
    assert_eq!(info["spec"]["cluster"]["server"], "https://x:1");
    assert_eq!(
        info["spec"]["cluster"]["certificate-authority-data"],
        "Y2E="
    );
}

#[tokio::test]
async fn failures_pass_on_what_the_plugin_said() {
    let error = run_it("echo 'session expired: run corp-login' >&2; exit 3").await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("session expired: run corp-login"), "{text}");
    assert!(text.contains("exit status: 3"), "{text}");

    for (script, reason) in [
        ("echo nonsense", "printed no usable credential"),
        ("echo '{\"status\":{}}'", "neither a token nor"),
        (
            "echo '{\"status\":{\"clientKeyData\":\"k\"}}'",
            "only one of",
        ),
        (
            "echo '{\"apiVersion\":\"client.authentication.k8s.io/v1beta1\",\"status\":{\"token\":\"t\"}}'",
            "answered in client.authentication.k8s.io/v1beta1",
        ),
    ] {
        let text = run_it(script).await.unwrap_err().to_string();
        assert!(text.contains(reason), "{script}: {text}");
    }
}

#[tokio::test]
async fn a_missing_plugin_comes_with_the_hint() {
    let config = ExecConfig {
        api_version: Some(V1BETA1.to_owned()),
        command: Some("no-such-credential-plugin".to_owned()),
        install_hint: Some("brew install corp-login\n".to_owned()),
        ..ExecConfig::default()
    };
    let text = within(&config, PLUGIN_TIMEOUT)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.ends_with("the kubeconfig says: brew install corp-login"),
        "{text}"
    );
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let config = plugin(&dir, "echo $$ > \"$(dirname \"$0\")/pid\"; exec sleep 600");
    let begun = Instant::now();
    let error = within(&config, Duration::from_millis(500))
        .await
        .unwrap_err();
    assert!(matches!(error, ExecError::TimedOut { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    for _ in 0..100 {
        // Gone, or a zombie that the runtime has not collected yet.
        match fs::read_to_string(&stat) {
            Ok(stat) if !stat.contains(") Z ") => {}
            _ => return,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the plugin still runs");
}

#[test]
fn the_terminal_is_lent_only_where_there_is_one() {
    let config = |mode, version: &str| ExecConfig {
        api_version: Some(version.to_owned()),
        command: Some("x".to_owned()),
        interactive_mode: mode,
        ..ExecConfig::default()
    };
    let ask = |mode, terminal| interactive(&config(Some(mode), V1), V1, terminal);
    assert_eq!(ask(ExecInteractiveMode::Never, true), Ok(false));
    assert_eq!(ask(ExecInteractiveMode::IfAvailable, true), Ok(true));
    assert_eq!(ask(ExecInteractiveMode::IfAvailable, false), Ok(false));
    assert_eq!(ask(ExecInteractiveMode::Always, true), Ok(true));
    assert!(matches!(
        ask(ExecInteractiveMode::Always, false),
        Err(ExecError::NeedsTerminal { .. })
    ));
    assert_eq!(interactive(&config(None, V1BETA1), V1BETA1, true), Ok(true));
    assert!(interactive(&config(None, V1), V1, true).is_err());
    let old = config(None, "client.authentication.k8s.io/v1alpha1");
    assert!(
        version(&old)
            .unwrap_err()
            .to_string()
            .contains("update the tool")
    );
}
