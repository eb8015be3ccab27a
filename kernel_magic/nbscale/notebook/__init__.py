"""What the user of a notebook touches: magics, the view of a run, messages to the front end."""
