"""Plain nn.Modules; none of them knows a config."""
