#[derive(Clone, Debug, clap::Args)]
pub struct DownArgs {}
pub fn down(_: &DownArgs) -> anyhow::Result<()> {
    Ok(())
}
