pub fn run(_out: &std::path::Path) -> anyhow::Result<()> {
    Ok(())
}
