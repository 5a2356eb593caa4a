use super::{Layout, handshake, settings::Settings, state::InstanceLock, up::UpArgs};
use anyhow::Result;
pub struct Inputs<'a> {
    pub args: &'a UpArgs,
    pub layout: &'a Layout,
    pub settings: Settings,
    pub lock: InstanceLock,
}
pub fn run(_: Inputs<'_>, _: &mut handshake::Reporter) -> Result<()> {
    Ok(())
}
