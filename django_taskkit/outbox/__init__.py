"""Messages that wait in the database to be published: the hook that puts them there, and the relay that sends them."""
