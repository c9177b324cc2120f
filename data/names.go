package data

import "strings"

// Names for phone books.
var (
	firstNames = strings.Fields(`Aaron Adam Alan Albert Alice Amanda Amber Amy Andrea Andrew Angela Ann Anna Anthony Arthur Ashley
Barbara Benjamin Betty Beverly Billy Bobby Brandon Brenda Brian Bruce Bryan Carl Carol Carolyn Catherine Charles Cheryl
Christian Christina Christine Christopher Cynthia Daniel David Deborah Debra Denise Dennis Diana Diane Donald Donna Dorothy
Douglas Dylan Edward Elizabeth Emily Emma Eric Ethan Eugene Evelyn Frances Frank Gabriel Gary George Gerald Gloria Grace
Gregory Hannah Harold Heather Helen Henry Howard Jack Jacob Jacqueline James Janet Janice Jason Jean Jeffrey Jennifer Jeremy
Jerry Jesse Jessica Joan Joe John Johnny Jonathan Jordan Jose Joseph Joshua Joyce Juan Judith Judy Julia Julie Justin Karen
Katherine Kathleen Kathryn Keith Kelly Kenneth Kevin Kimberly Kyle Larry Laura Lauren Lawrence Linda Lisa Logan Louis Madison
Margaret Maria Marie Marilyn Mark Martha Mary Matthew Megan Melissa Michael Michelle Nancy Natalie Nathan Nicholas Nicole Noah
Olivia Pamela Patricia Patrick Paul Peter Philip Rachel Ralph Randy Raymond Rebecca Richard Robert Roger Ronald Rose Roy Russell
Ruth Ryan Samantha Samuel Sandra Sara Sarah Scott Sean Sharon Shirley Sophia Stephanie Stephen Steven Susan Teresa Terry Theresa
Thomas Timothy Tyler Victoria Vincent Virginia Walter Wayne William Willie Zachary`)
	lastNames = strings.Fields(`Adams Alexander Allen Alvarez Anderson Andrews Armstrong Arnold Bailey Baker Barnes Bell Bennett Berry Black
Boyd Bradley Brooks Brown Bryant Burns Butler Campbell Carpenter Carroll Carter Castillo Chavez Clark Cole Coleman Collins Cook
Cooper Cox Crawford Cruz Cunningham Daniels Davis Diaz Dixon Duncan Dunn Edwards Elliott Ellis Evans Ferguson Fernandez Fisher
Flores Ford Foster Fox Franklin Freeman Garcia Gardner Gibson Gomez Gonzalez Gordon Graham Grant Gray Green Greene Griffin
Gutierrez Hall Hamilton Hansen Harper Harris Harrison Hart Harvey Hawkins Hayes Henderson Henry Hernandez Herrera Hicks Hill
Hoffman Holmes Howard Hudson Hughes Hunt Hunter Jackson James Jenkins Jensen Jimenez Johnson Johnston Jones Jordan Kelley Kelly
Kennedy Kim King Knight Lane Larson Lawrence Lawson Lee Lewis Little Long Lopez Lynch Marshall Martin Martinez Mason Matthews
McCoy McDonald Medina Mendoza Meyer Miller Mills Mitchell Montgomery Moore Morales Moreno Morgan Morris Morrison Murphy Murray
Myers Nelson Nguyen Nichols Obrien Oliver Olson Ortiz Owens Palmer Parker Patel Patterson Payne Perez Perkins Perry Peters
Peterson Phillips Pierce Porter Powell Price Ramirez Ramos Ray Reed Reyes Reynolds Rice Richards Richardson Riley Rivera Roberts
Robertson Robinson Rodriguez Rogers Romero Rose Ross Ruiz Russell Ryan Sanchez Sanders Schmidt Scott Shaw Simmons Simpson Sims
Smith Snyder Soto Spencer Stephens Stevens Stewart Stone Sullivan Taylor Thomas Thompson Torres Tucker Turner Vasquez Wagner Walker
Wallace Ward Warren Washington Watkins Watson Weaver Webb Weber Welch Wells West Wheeler White Williams Williamson Willis Wilson
Wood Woods Wright Young`)
)
