//! The client commands: as kubectl, with the same flags and output shapes.
//!
//! Every command works on [`Session`] (who am I talking to, in which namespace) and names
//! things through [`resources`] (what the server's discovery says a word means). Nothing here
//! knows a kind that the server does not tell of, except where a command is about one
//! (`logs` about pods, `rollout` about deployments).

mod apply;
mod args;
mod cp;
mod create;
mod delete;
mod describe;
mod diff;
mod edit;
mod events;
mod exec;
mod explain;
mod faults;
mod get;
mod logs;
mod manifests;
mod patch;
mod port_forward;
mod print;
mod resources;
mod rollout;
mod scale;
mod session;
mod top;
mod wait;

use anyhow::Result;
use clap::Subcommand;

pub use events::human;
pub use print::align;
pub use session::{Global, Session, optional, server_error};

/// The client commands.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Show one or many resources
    Get(get::GetArgs),
    /// Show a resource in detail, with its events
    Describe(describe::DescribeArgs),
    /// Make the cluster match manifests
    Apply(apply::ApplyArgs),
    /// Create resources from manifests, or by kind
    Create(create::CreateArgs),
    /// Delete resources
    Delete(delete::DeleteArgs),
    /// Edit a resource in your editor
    Edit(edit::EditArgs),
    /// Change fields of a resource
    Patch(patch::PatchArgs),
    /// Set the number of replicas
    Scale(scale::ScaleArgs),
    /// Follow, undo or restart a rollout
    Rollout(rollout::RolloutArgs),
    /// Print a container's log
    Logs(logs::LogsArgs),
    /// Run a command in a container
    Exec(exec::ExecArgs),
    /// Attach to a running container
    Attach(exec::AttachArgs),
    /// Forward local ports to a pod
    PortForward(port_forward::PortForwardArgs),
    /// Copy files to and from containers
    Cp(cp::CpArgs),
    /// Show what nodes and pods use
    Top(top::TopArgs),
    /// Wait for a condition
    Wait(wait::WaitArgs),
    /// List events
    Events(events::EventsArgs),
    /// Explain a resource's fields
    Explain(explain::ExplainArgs),
    /// Show what apply would change
    Diff(diff::DiffArgs),
}

/// Runs a client command; the result is the exit status.
pub async fn run(command: ClientCommand, global: Global) -> Result<u8> {
    let session = Session::open(&global).await?;
    match command {
        ClientCommand::Get(args) => get::run(&session, &args).await?,
        ClientCommand::Describe(args) => describe::run(&session, &args).await?,
        ClientCommand::Apply(args) => apply::run(&session, &args).await?,
        ClientCommand::Create(args) => create::run(&session, &args).await?,
        ClientCommand::Delete(args) => delete::run(&session, &args).await?,
        ClientCommand::Edit(args) => edit::run(&session, &args).await?,
        ClientCommand::Patch(args) => patch::run(&session, &args).await?,
        ClientCommand::Scale(args) => scale::run(&session, &args).await?,
        ClientCommand::Rollout(args) => rollout::run(&session, &args).await?,
        ClientCommand::Logs(args) => logs::run(&session, &args).await?,
        ClientCommand::Exec(args) => return exec::run(&session, &args).await,
        ClientCommand::Attach(args) => return exec::attach(&session, &args).await,
        ClientCommand::PortForward(args) => port_forward::run(&session, &args).await?,
        ClientCommand::Cp(args) => cp::run(&session, &args).await?,
        ClientCommand::Top(args) => top::run(&session, &args).await?,
        ClientCommand::Wait(args) => wait::run(&session, &args).await?,
        ClientCommand::Events(args) => events::run(&session, &args).await?,
        ClientCommand::Explain(args) => explain::run(&session, &args).await?,
        ClientCommand::Diff(args) => return diff::run(&session, &args).await,
    }
    Ok(0)
}
