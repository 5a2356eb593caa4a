//! `peapod image`: the images of this machine's nodes, and making one from a static binary.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use peapod_nodelet::images::ContainerdImages;
use peapod_nodelet::images::assemble::Assemble;
use peapod_nodelet::runtime::containerd::client::Client;
use peapod_nodelet::runtime::{Credential, Image, Images, Progress, ProgressEvent, PullRequest};

use crate::cli::{DataDir, single_threaded};
use crate::instance::{Layout, State};

/// The arguments of `peapod image`.
#[derive(Debug, clap::Args)]
pub struct ImageArgs {
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Load the images of an OCI or Docker archive
    Load {
        /// The archive, as `docker save` or `skopeo copy oci-archive:` write it
        file: PathBuf,
    },
    /// Pull an image from its registry
    Pull {
        /// The image, as registry.example/name:tag
        reference: String,
        /// User name for the registry
        #[arg(long, requires = "password")]
        username: Option<String>,
        /// Password for the registry
        #[arg(long, env = "PEAPOD_REGISTRY_PASSWORD", hide_env_values = true)]
        password: Option<String>,
    },
    /// List the images
    #[command(visible_alias = "ls")]
    List,
    /// Remove an image
    #[command(visible_alias = "rm")]
    Remove {
        /// The image, or its ID
        reference: String,
    },
    /// Remove the images that no container uses
    Prune,
    /// Make an image archive of a static binary, without a network
    Assemble {
        /// Name of the image
        reference: String,
        /// The binary; it becomes the entrypoint
        binary: PathBuf,
        /// Variables of the environment
        #[arg(long, value_name = "NAME=VALUE")]
        env: Vec<String>,
        /// Where the archive goes
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Runs `peapod image`.
pub fn run(args: &ImageArgs) -> Result<()> {
    if let Action::Assemble {
        reference,
        binary,
        env,
        output,
    } = &args.action
    {
        return assemble(reference, binary, env, output);
    }
    let layout = Layout::new(&args.data_dir.data_dir)?;
    let Some(state) = State::running(&layout)? else {
        bail!(
            "no node runs from {}; start it with `peapod up`",
            layout.root().display()
        );
    };
    single_threaded()?.block_on(async {
        let nodes = layout.of_nodes();
        for node in &nodes {
            if nodes.len() > 1 {
                let name = node.root().file_name().unwrap_or_default();
                println!("{}:", name.to_string_lossy());
            }
            let config = node.runtime(state.containerd.clone());
            let client = Client::new(&config.address, &config.namespace)?;
            let images = ContainerdImages::new(client, config.registries);
            act(&images, &args.action).await?;
        }
        Ok(())
    })
}

async fn act(images: &dyn Images, action: &Action) -> Result<()> {
    match action {
        Action::Load { file } => {
            for image in images.load(file, &Bars::new()).await? {
                println!("Loaded {} ({})", name(&image), HumanBytes(image.size_bytes));
            }
        }
        Action::Pull {
            reference,
            username,
            password,
        } => {
            let basic = |(username, password): (&String, &String)| Credential::Basic {
                username: username.clone(),
                password: password.clone(),
            };
            let credentials = username.as_ref().zip(password.as_ref()).map(basic);
            let request = PullRequest {
                reference: reference.clone(),
                credentials: credentials.into_iter().collect(),
            };
            let image = images.pull(&request, &Bars::new()).await?;
            println!("Pulled {} ({})", name(&image), HumanBytes(image.size_bytes));
        }
        Action::List => print!("{}", table(&images.list().await?)),
        Action::Remove { reference } => {
            images.remove(reference).await?;
            println!("Removed {reference}");
        }
        Action::Prune => {
            for image in images.prune(&[]).await? {
                println!(
                    "Removed {} ({})",
                    name(&image),
                    HumanBytes(image.size_bytes)
                );
            }
        }
        Action::Assemble { .. } => {}
    }
    Ok(())
}

fn assemble(reference: &str, binary: &Path, env: &[String], output: &Path) -> Result<()> {
    if let Some(wrong) = env.iter().find(|pair| !pair.contains('=')) {
        bail!("--env must be NAME=VALUE, not {wrong:?}");
    }
    let mut image = Assemble::from_binary(reference, binary, &[])?;
    image
        .config
        .env
        .get_or_insert_default()
        .extend(env.iter().cloned());
    let file =
        File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
    image
        .write(BufWriter::new(file))
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("Made {} of {}", output.display(), binary.display());
    Ok(())
}

fn name(image: &Image) -> &str {
    image.references.first().unwrap_or(&image.id)
}

/// Every name with a tag; of an image without any, the one it has.
fn names(image: &Image) -> Vec<&str> {
    let all = image.references.iter().map(String::as_str);
    let tags: Vec<&str> = all.filter(|name| !name.contains('@')).collect();
    match tags.is_empty() {
        true => vec![name(image)],
        false => tags,
    }
}

fn table(images: &[Image]) -> String {
    let header = ["IMAGE", "ID", "SIZE"].map(str::to_owned).to_vec();
    let mut lines = vec![header];
    for image in images {
        let id: String = image
            .id
            .trim_start_matches("sha256:")
            .chars()
            .take(12)
            .collect();
        let size = HumanBytes(image.size_bytes).to_string();
        for name in names(image) {
            lines.push(vec![name.to_owned(), id.clone(), size.clone()]);
        }
    }
    crate::client::align(&lines)
}

/// A bar for each layer, on a terminal.
struct Bars {
    all: MultiProgress,
    layers: Mutex<Vec<(String, ProgressBar)>>,
}

impl Bars {
    fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            layers: Mutex::default(),
        }
    }

    fn with(&self, layer: &str, total: u64, change: impl FnOnce(&ProgressBar)) {
        let Ok(mut layers) = self.layers.lock() else {
            return;
        };
        if !layers.iter().any(|(known, _)| known == layer) {
            let bar = self.all.add(ProgressBar::new(total));
            let template = "{prefix} {bar:30} {bytes}/{total_bytes} {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(
                layer
                    .trim_start_matches("sha256:")
                    .chars()
                    .take(12)
                    .collect::<String>(),
            );
            layers.push((layer.to_owned(), bar));
        }
        if let Some((_, bar)) = layers.iter().find(|(known, _)| known == layer) {
            change(bar);
        }
    }
}

impl Progress for Bars {
    fn update(&self, event: ProgressEvent) {
        match event {
            ProgressEvent::Resolved { .. } => {}
            ProgressEvent::Fetching {
                layer,
                done_bytes,
                total_bytes,
            } => {
                self.with(&layer, total_bytes, |bar| bar.set_position(done_bytes));
            }
            ProgressEvent::Fetched { layer } => self.with(&layer, 0, |bar| {
                bar.set_message("fetched");
            }),
            ProgressEvent::Unpacked { layer } => self.with(&layer, 0, |bar| {
                bar.finish_with_message("unpacked");
            }),
        }
    }
}
