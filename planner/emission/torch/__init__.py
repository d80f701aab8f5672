"""The reference launcher, `meshwright.cli.run`: it reads the plan itself."""
