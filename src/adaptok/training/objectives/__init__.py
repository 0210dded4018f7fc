"""What each stage minimizes: one module per stage that turns a batch into a loss."""
