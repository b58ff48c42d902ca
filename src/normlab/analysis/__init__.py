"""From the archive to tables and figures. Reads what runs left on disk; never imports torch."""
