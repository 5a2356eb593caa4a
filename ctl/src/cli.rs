//! The command line: what can be said, and who does it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

use crate::client::{self, ClientCommand, Global};
use crate::cni;
use crate::image::{self, ImageArgs};
use crate::instance::{self, UpArgs};
use crate::net::{self, NetArgs};
use crate::roles::{apart, join, run_netd, run_node, server, token};
use crate::router::{self, RouterArgs};
use crate::snapshot::{self, SnapshotCommand};
use crate::terminal;

/// A Kubernetes in one small binary, with the network built in.
#[derive(Debug, Parser)]
#[command(name = "peapod", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster on this machine
    Up(Box<UpArgs>),
    /// Stop the cluster on this machine
    Down(instance::DownArgs),
    /// Show what runs, since when, and what to know
    Status(instance::StatusArgs),
    /// Run the control plane of a cluster of machines, in the foreground
    Server(Box<server::ServerArgs>),
    /// Make this machine a node of a cluster
    Join(join::JoinArgs),
    /// Run the agents of a node, in the foreground
    Node(run_node::NodeArgs),
    /// Run the network agent of a node apart from `peapod node`, in the foreground
    Netd(run_netd::NetdArgs),
    /// Attach containers of other runtimes, as a CNI plugin (also under the name peapod-cni)
    Cni,
    /// Run the scheduler apart from the server
    Scheduler(apart::SchedulerArgs),
    /// Run the controllers apart from the server
    Controllers(apart::ControllersArgs),
    /// Manage the tokens that machines join with
    Token(token::TokenArgs),
    /// Manage the images of this machine's nodes
    Image(ImageArgs),
    /// Run a BGP router, with no cluster
    Router(RouterArgs),
    /// Save, verify and restore backups of the cluster's objects
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Look into the network: sessions, routes, services, history, traces
    Net(NetArgs),
    #[command(flatten)]
    Client(ClientCommand),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Run the containers of a node (started by the node agent)
    #[command(hide = true)]
    Shim {
        /// What the node agent passes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Decompress a layer (started by a containerd of ours)
    #[command(hide = true)]
    Inflate,
    /// Write the logs of containers (started by the node agent)
    #[command(hide = true)]
    LogWriter {
        /// What the node agent passes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

impl Command {
    /// Whether it only asks and tells.
    fn is_a_question(&self) -> bool {
        matches!(
            self,
            Command::Client(_)
                | Command::Net(_)
                | Command::Status(_)
                | Command::Token(_)
                | Command::Completion { .. }
        )
    }
}

/// Does what was said.
pub fn run(cli: Cli) -> Result<ExitCode> {
    if cli.command.is_a_question() {
        terminal::end_with_reader();
    }
    match cli.command {
        Command::Up(args) => instance::up(&args)?,
        Command::Down(args) => instance::down(&args)?,
        Command::Status(args) => return instance::status(&args),
        Command::Server(args) => server::run(&args)?,
        Command::Join(args) => join::run(&args)?,
        Command::Node(args) => run_node::run(&args)?,
        Command::Netd(args) => run_netd::run(&args)?,
        Command::Cni => return Ok(cni::run()),
        Command::Scheduler(args) => apart::scheduler(&args)?,
        Command::Controllers(args) => apart::controllers(&args)?,
        Command::Token(args) => token::run(&args)?,
        Command::Image(args) => image::run(&args)?,
        Command::Router(args) => router::run(&args)?,
        Command::Snapshot(command) => snapshot::run(&command, &cli.global)?,
        Command::Net(args) => net::run(args, &cli.global)?,
        Command::Client(command) => {
            let code = single_threaded()?.block_on(client::run(command, cli.global))?;
            return Ok(ExitCode::from(code));
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "peapod", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
        }
        Command::Shim { arguments } => {
            peapod_nodelet::shim_main(&arguments).map_err(anyhow::Error::msg)?;
        }
        Command::Inflate => peapod_nodelet::images::inflate::inflate_main()?,
        Command::LogWriter { arguments } => {
            peapod_nodelet::logs::writer_main(&arguments).map_err(anyhow::Error::msg)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A client command needs one thread.
pub fn single_threaded() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

/// The data directory flag of the commands that address a running instance.
#[derive(Clone, Debug, clap::Args)]
pub struct DataDir {
    /// Where the instance keeps its state
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PEAPOD_DATA_DIR",
        default_value = "/var/lib/peapod"
    )]
    pub data_dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_data_directory_is_told_before_and_behind_a_subcommand() {
        for words in [
            "peapod image --data-dir /d list",
            "peapod image list --data-dir /d",
            "peapod token create --data-dir /d",
        ] {
            assert!(Cli::try_parse_from(words.split(' ')).is_ok(), "{words}");
        }
    }
}
