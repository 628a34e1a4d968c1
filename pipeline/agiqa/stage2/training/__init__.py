"""What the presets that train networks share: epochs, steps, rates, and going on after a stop."""
