#[derive(Debug, clap::Args)]
pub struct ImageArgs {}
pub fn run(_: &ImageArgs) -> anyhow::Result<()> {
    Ok(())
}
pub fn log_writer(_: Vec<std::ffi::OsString>) -> anyhow::Result<()> {
    Ok(())
}
