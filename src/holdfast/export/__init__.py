"""Networks written into files that other runtimes run, and how such a file is checked."""
