"""What this machine is and how it stands: model, power mode, clocks, temperatures, sensors; read, never changed."""
