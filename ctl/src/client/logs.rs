//! `logs`: of a pod, of a workload's pods, of all that a selector finds.

use anyhow::{Result, bail};
use futures::{AsyncBufReadExt, AsyncReadExt, StreamExt, TryStreamExt};
use serde_json::Value;

use super::args::{self, query};
use super::session::{Session, server_error};
use super::wait;

/// The arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// POD [CONTAINER], or TYPE/NAME
    words: Vec<String>,
    /// Label selector of the pods
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Container
    #[arg(short, long)]
    container: Option<String>,
    /// Every container
    #[arg(long)]
    all_containers: bool,
    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,
    /// Of the container before its last restart
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; -1 is all
    #[arg(long, default_value_t = -1)]
    tail: i64,
    /// Only what is younger, as 5s, 2m, 3h
    #[arg(long)]
    since: Option<String>,
    /// Only what came after (RFC 3339)
    #[arg(long)]
    since_time: Option<String>,
    /// Each line with its time
    #[arg(long)]
    timestamps: bool,
    /// At most this many bytes
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Each line with its pod and container
    #[arg(long)]
    prefix: bool,
}

struct Source {
    pod: String,
    container: String,
}

/// Runs `logs`.
pub async fn run(session: &Session, args: &LogsArgs) -> Result<()> {
    let sources = sources(session, args).await?;
    if sources.is_empty() {
        bail!("no pods found");
    }
    if !args.follow {
        for source in &sources {
            print_log(session, args, source).await?;
        }
        return Ok(());
    }
    let all = sources
        .iter()
        .map(|source| print_log(session, args, source));
    futures::stream::iter(all)
        .buffer_unordered(64)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

async fn sources(session: &Session, args: &LogsArgs) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for pod in pods(session, args).await? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        for container in containers(&pod, args)? {
            sources.push(Source {
                pod: name.to_owned(),
                container,
            });
        }
    }
    Ok(sources)
}

async fn pods(session: &Session, args: &LogsArgs) -> Result<Vec<Value>> {
    let pods = session.resource("pods").await?;
    let selector = match (&args.selector, args.words.first()) {
        (Some(selector), _) => selector.clone(),
        (None, None) => {
            bail!("expected 'logs [-f] POD [-c CONTAINER]' or TYPE/NAME or -l SELECTOR")
        }
        (None, Some(word)) => match word.split_once('/') {
            None => {
                return Ok(vec![
                    session.get(&pods.object(session.namespace(), word)).await?,
                ]);
            }
            Some(_) => {
                let (resource, name) = args::one(session, std::slice::from_ref(word)).await?;
                let object = session
                    .get(&resource.object(session.namespace(), &name))
                    .await?;
                if resource.plural == "pods" {
                    return Ok(vec![object]);
                }
                selector_of(&object)?
            }
        },
    };
    let path = pods.collection(Some(session.namespace())) + &query(&[("labelSelector", &selector)]);
    let list = session.get(&path).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// The pods of a workload or service, as a label selector.
pub fn selector_of(object: &Value) -> Result<String> {
    let selector = &object["spec"]["selector"];
    let labels = selector.get("matchLabels").unwrap_or(selector);
    let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else {
        bail!(
            "{} selects no pods",
            object["kind"].as_str().unwrap_or("it")
        );
    };
    let pairs: Vec<String> = labels
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    Ok(pairs.join(","))
}

fn containers(pod: &Value, args: &LogsArgs) -> Result<Vec<String>> {
    let names = |list: &str| -> Vec<String> {
        let items = pod["spec"][list].as_array().into_iter().flatten();
        items
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect()
    };
    if args.all_containers {
        return Ok([names("initContainers"), names("containers")].concat());
    }
    if let Some(name) = args.container.as_ref().or(args.words.get(1)) {
        return Ok(vec![name.clone()]);
    }
    let annotation = "kubectl.kubernetes.io/default-container";
    if let Some(name) = pod["metadata"]["annotations"][annotation].as_str() {
        return Ok(vec![name.to_owned()]);
    }
    let all = names("containers");
    if all.len() > 1 {
        let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
        eprintln!(
            "Defaulted container \"{}\" out of: {} (of pod {pod})",
            all[0],
            all.join(", ")
        );
    }
    Ok(all.into_iter().take(1).collect())
}

async fn print_log(session: &Session, args: &LogsArgs, source: &Source) -> Result<()> {
    let pods = session.resource("pods").await?;
    let since = args.since.as_deref().map(wait::duration).transpose()?;
    let text = |flag: bool| if flag { "true" } else { "" };
    let pairs = [
        ("container", source.container.as_str()),
        ("follow", text(args.follow)),
        ("previous", text(args.previous)),
        ("timestamps", text(args.timestamps)),
        (
            "tailLines",
            &if args.tail < 0 {
                String::new()
            } else {
                args.tail.to_string()
            },
        ),
        (
            "sinceSeconds",
            &since
                .map(|d| d.as_secs().max(1).to_string())
                .unwrap_or_default(),
        ),
        ("sinceTime", args.since_time.as_deref().unwrap_or_default()),
        (
            "limitBytes",
            &args.limit_bytes.map(|n| n.to_string()).unwrap_or_default(),
        ),
    ];
    let path = pods.object(session.namespace(), &source.pod) + "/log" + &query(&pairs);
    let request = http::Request::get(path).body(Vec::new())?;
    let mut stream = session
        .client()
        .request_stream(request)
        .await
        .map_err(server_error)?;
    let stdout = tokio::io::stdout();
    let mut stdout = tokio::io::BufWriter::new(stdout);
    use tokio::io::AsyncWriteExt;
    if args.prefix {
        let mut lines = stream.lines();
        while let Some(line) = lines.try_next().await? {
            println!("[pod/{}/{}] {line}", source.pod, source.container);
        }
        return Ok(());
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stdout.write_all(&buffer[..read]).await?;
        stdout.flush().await?;
    }
}
