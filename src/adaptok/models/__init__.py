"""Models as pure torch modules. They read and write no files."""
