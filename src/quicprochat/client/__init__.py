"""What a person or a script talks to: commands, the home's socket, output, the prompt, the daemon."""
