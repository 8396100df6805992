"""This machine and its state: model, power mode, clocks, temperatures, sensors. It is only read, never changed."""
