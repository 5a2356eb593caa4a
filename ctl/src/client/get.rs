//! `get`: lists and shows; the server makes the tables.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::args::{self, Target, query};
use super::print::{self, Format, Table};
use super::session::{Session, server_error};

/// The arguments of `get`.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// TYPE [NAME...] or TYPE/NAME
    #[arg(required_unless_present = "filename")]
    words: Vec<String>,
    /// Manifests that name the objects
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// wide, json, yaml, name, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// Every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Label selector
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// Field selector
    #[arg(long, default_value = "")]
    field_selector: String,
    /// Go on showing changes
    #[arg(short, long)]
    watch: bool,
    /// Only show changes from now on
    #[arg(long)]
    watch_only: bool,
    /// Show labels in a column
    #[arg(long)]
    show_labels: bool,
    /// Show these labels as columns
    #[arg(short = 'L', long, value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Leave the header out
    #[arg(long)]
    no_headers: bool,
    /// Exit with 0 when the object is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Sort by a field, as {.metadata.name}
    #[arg(long, value_name = "JSONPATH")]
    sort_by: Option<String>,
}

/// Runs `get`.
pub async fn run(session: &Session, args: &GetArgs) -> Result<()> {
    let format = Format::parse(args.output.as_deref())?;
    let targets = match args.filename.is_empty() {
        true => args::targets(session, &args.words).await?,
        false => from_files(session, &args.filename).await?,
    };
    if args.watch || args.watch_only {
        return watch(session, args, &targets, &format).await;
    }
    match format {
        Format::Table { wide } => tables(session, args, &targets, wide).await,
        _ => objects(session, args, &targets, &format).await,
    }
}

async fn from_files<'a>(session: &'a Session, files: &[String]) -> Result<Vec<Target<'a>>> {
    let mut targets = Vec::new();
    for object in super::manifests::read(files, false)? {
        let resource = session.resource_of(&object).await?;
        let name = object["metadata"]["name"].as_str().map(str::to_owned);
        targets.push(Target { resource, name });
    }
    Ok(targets)
}

/// Path and query of one target.
fn path(session: &Session, args: &GetArgs, target: &Target<'_>, watching: bool) -> Result<String> {
    let namespace = (!args.all_namespaces).then(|| session.namespace());
    let mut fields = args.field_selector.clone();
    let base = match &target.name {
        None => target.resource.collection(namespace),
        Some(_) if namespace.is_none() && target.resource.namespaced => {
            bail!("a resource cannot be retrieved by name across all namespaces")
        }
        Some(name) if watching => {
            fields = format!("metadata.name={name}");
            target.resource.collection(namespace)
        }
        Some(name) => return Ok(target.resource.object(session.namespace(), name)),
    };
    let pairs = [
        ("labelSelector", args.selector.as_str()),
        ("fieldSelector", fields.as_str()),
    ];
    Ok(base + &query(&pairs))
}

async fn tables(
    session: &Session,
    args: &GetArgs,
    targets: &[Target<'_>],
    wide: bool,
) -> Result<()> {
    let mut shown: Vec<(&str, Table, bool)> = Vec::new();
    for target in targets {
        let reply = session
            .get_as(&path(session, args, target, false)?, print::TABLE)
            .await;
        let reply = match super::session::optional(reply)? {
            Some(reply) => reply,
            None if args.ignore_not_found => continue,
            None => bail!(
                "Error from server (NotFound): {} \"{}\" not found",
                target.resource.qualified(&target.resource.plural),
                target.name.as_deref().unwrap_or_default()
            ),
        };
        let mut table = Table::read(&reply)?;
        table.add_labels(&args.label_columns, args.show_labels);
        if let Some(path) = &args.sort_by {
            table.sort_by(path)?;
        }
        let namespaced = args.all_namespaces && target.resource.namespaced;
        let name = target.resource.plural.as_str();
        match shown.last_mut().filter(|(last, _, _)| *last == name) {
            Some((_, last, _)) => last.append(table),
            None => shown.push((name, table, namespaced)),
        }
    }
    shown.retain(|(_, table, _)| !table.is_empty());
    if shown.is_empty() {
        let place = match args.all_namespaces || targets.iter().all(|t| !t.resource.namespaced) {
            true => "No resources found".to_owned(),
            false => format!("No resources found in {} namespace.", session.namespace()),
        };
        if !args.ignore_not_found {
            eprintln!("{place}");
        }
        return Ok(());
    }
    let several = shown.len() > 1;
    for (at, (_, table, namespaced)) in shown.iter().enumerate() {
        if at > 0 {
            println!();
        }
        let prefix = several.then(|| targets.iter().find(|t| t.resource.plural == shown[at].0));
        let prefix = prefix
            .flatten()
            .map(|t| t.resource.qualified(&t.resource.singular));
        print!(
            "{}",
            table.render(wide, *namespaced, !args.no_headers, prefix.as_deref())
        );
    }
    Ok(())
}

async fn objects(
    session: &Session,
    args: &GetArgs,
    targets: &[Target<'_>],
    format: &Format,
) -> Result<()> {
    let single = targets.len() == 1 && targets[0].name.is_some();
    let mut items = Vec::new();
    for target in targets {
        let reply = session.get(&path(session, args, target, false)?).await;
        let Some(mut reply) = (match args.ignore_not_found {
            true => super::session::optional(reply)?,
            false => Some(reply?),
        }) else {
            continue;
        };
        if target.name.is_some() {
            items.push(reply);
            continue;
        }
        let Value::Array(list) = reply["items"].take() else {
            continue;
        };
        items.extend(list.into_iter().map(|item| with_kind(item, target)));
    }
    if let Some(path) = &args.sort_by {
        print::sort(&mut items, path)?;
    }
    let value = match single {
        true => match items.pop() {
            Some(item) => item,
            None => return Ok(()),
        },
        false => {
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
        }
    };
    print!("{}", print::render(format, value, targets[0].resource)?);
    Ok(())
}

/// Items of a list come without their kind; a mixed list needs it.
fn with_kind(mut item: Value, target: &Target<'_>) -> Value {
    if let Value::Object(fields) = &mut item {
        fields
            .entry("apiVersion")
            .or_insert_with(|| target.resource.api_version().into());
        fields
            .entry("kind")
            .or_insert_with(|| target.resource.kind.clone().into());
    }
    item
}

async fn watch(
    session: &Session,
    args: &GetArgs,
    targets: &[Target<'_>],
    format: &Format,
) -> Result<()> {
    use futures::{AsyncBufReadExt, TryStreamExt};
    let [target] = targets else {
        bail!("you may only specify a single resource type with --watch");
    };
    let base = path(session, args, target, true)?;
    let glue = if base.contains('?') { '&' } else { '?' };
    let (accept, wide) = match format {
        Format::Table { wide } => (print::TABLE, *wide),
        _ => ("application/json", false),
    };
    let mut version = String::new();
    let mut printer = print::Rows::new(
        wide,
        args.all_namespaces && target.resource.namespaced,
        !args.no_headers,
    );
    let list = session.get_as(&base, accept).await?;
    if let Some(found) = list["metadata"]["resourceVersion"].as_str() {
        version = found.to_owned();
    }
    if !args.watch_only {
        show(&list, target, format, &mut printer)?;
    }
    let path = format!("{base}{glue}watch=true&resourceVersion={version}");
    let request = http::Request::get(path)
        .header("Accept", accept)
        .body(Vec::new())?;
    let stream = session
        .client()
        .request_stream(request)
        .await
        .map_err(server_error)?;
    let mut lines = stream.lines();
    while let Some(line) = lines.try_next().await? {
        let event: Value = serde_json::from_str(&line)?;
        match event["type"].as_str() {
            Some("ERROR") => bail!(
                "{}",
                event["object"]["message"]
                    .as_str()
                    .unwrap_or("the watch failed")
            ),
            Some("BOOKMARK") => {}
            _ => show(&event["object"], target, format, &mut printer)?,
        }
    }
    Ok(())
}

fn show(value: &Value, target: &Target<'_>, format: &Format, rows: &mut print::Rows) -> Result<()> {
    if let Format::Table { .. } = format {
        print!("{}", rows.render(Table::read(value)?));
        return Ok(());
    }
    let items = match value.get("items") {
        Some(Value::Array(items)) => items.clone(),
        _ => vec![value.clone()],
    };
    for item in items {
        print!(
            "{}",
            print::render(format, with_kind(item, target), target.resource)?
        );
    }
    Ok(())
}
